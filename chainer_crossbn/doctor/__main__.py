"""Run ``python -m chainer_crossbn.doctor``."""

import sys

from chainer_crossbn.doctor import main

if __name__ == "__main__":
    sys.exit(main())
