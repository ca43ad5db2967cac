"""A job script for each run, for batch schedulers."""

from chainer_crossbn.experiments import jobs

SCHEDULERS = ("slurm", "age")

_SLURM = """\
#!/bin/sh
#SBATCH --job-name={name}
#SBATCH --ntasks={ranks}
#SBATCH --output={output}
"""
# Sites name resources (-l, -pe) in ways of their own.
_AGE = """\
#!/bin/sh
#$ -N {name}
#$ -cwd
#$ -j y
#$ -o {output}
"""
_HEADS = dict(zip(SCHEDULERS, (_SLURM, _AGE)))


def script(job, out, data, scheduler):
    """Return the script of a run.

    Args:
        job (Job): The run.
        out (str): Directory that gathers all.
        data (str or None): Value of ``--data``.
        scheduler (str): One of :data:`SCHEDULERS`: Slurm, Altair Grid Engine.

    Returns:
        str: The script, which starts with ``#!``.
    """
    name = job.name.replace("/", "-")
    # Into the directory of submission, as that is there.
    head = _HEADS[scheduler].format(name=name, ranks=job.ranks, output=f"{name}.output")
    return head + jobs.quoted(job.command(out, data)) + "\n"
