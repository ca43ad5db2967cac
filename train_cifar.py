"""Train VGG16 on CIFAR with all MPI ranks.

mpiexec -n 8 python train_cifar.py --bn multigpu
"""

import sys

from chainer_crossbn.commands.train.main import main

if __name__ == "__main__":
    sys.exit(main())
