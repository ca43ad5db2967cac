#!/bin/sh
#SBATCH --job-name=comparison
#SBATCH --ntasks=8
#SBATCH --output=comparison-%j.output
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --time=24:00:00
# The paper's comparison under Slurm, from the top of the clone:
#
#     BATCHSIZE=2 sbatch --ntasks-per-node=4 --gres=gpu:4 jobs/slurm.sh
#
# What each site names in its own way (partition, account, GPUs) goes on the command line.
# LAUNCH is "mpiexec", whose MPICH starts its ranks by srun, or, for a site's own MPI, such
# as "srun --mpi=pmix". Where the time is up the job is queued again and goes on. See
# comparison.sh for the other variables.
set -eu
launch=${LAUNCH:-mpiexec}
if [ -n "${SLURM_JOB_END_TIME:-}" ]; then
    # Five minutes for the snapshot.
    : "${STOP_AFTER:=$((SLURM_JOB_END_TIME - $(date +%s) - 300))}"
    export STOP_AFTER
fi
status=0
# LAUNCH may be several words.
# shellcheck disable=SC2086
sh jobs/comparison.sh $launch -n "$SLURM_NTASKS" || status=$?
if [ "$status" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
