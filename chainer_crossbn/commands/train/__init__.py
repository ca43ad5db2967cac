"""Training from a command line: ``train_cifar.py``."""
