"""Run ``python -m chainer_crossbn.experiments``."""

import sys

from chainer_crossbn.experiments import main

if __name__ == "__main__":
    sys.exit(main())
