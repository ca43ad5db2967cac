"""Fixtures that test files share."""

import subprocess

import pytest


@pytest.fixture
def call(capsys):
    """Return a function that calls a command in this process, as its only rank.

    Its arguments are the ``main`` of the command and the command line. It returns a
    :class:`subprocess.CompletedProcess`, as :func:`mpi.mpiexec` does.
    """

    def call(main, *arguments):
        argv = [str(argument) for argument in arguments]
        capsys.readouterr()
        status = main(argv)
        shown = capsys.readouterr()
        return subprocess.CompletedProcess(argv, status, shown.out, shown.err)

    return call
