"""Train several networks one after the other, in one launch.

Usage: trainings.py JSON, a list of command lines of train_cifar.py.
"""

import json
import sys

from chainer_crossbn.commands.train.main import main

for arguments in json.loads(sys.argv[1]):
    status = main(arguments)
    if status:
        sys.exit(status)
