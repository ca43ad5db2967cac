"""Draw the figures of training runs; see ``python plot.py --help``."""

import sys

from chainer_crossbn.commands.plot import main

if __name__ == "__main__":
    sys.exit(main())
