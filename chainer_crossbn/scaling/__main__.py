"""Run ``python -m chainer_crossbn.scaling``."""

import sys

from chainer_crossbn.scaling import main

if __name__ == "__main__":
    sys.exit(main())
