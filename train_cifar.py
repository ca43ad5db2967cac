"""Train VGG16 on CIFAR with all MPI ranks.

mpiexec -n 8 python train_cifar.py --bn multigpu
"""

import sys

from chainer_crossbn import training

if __name__ == "__main__":
    sys.exit(training.main())
