#!/bin/sh
#SBATCH --job-name=comparison
#SBATCH --ntasks=8
#SBATCH --output=comparison-%j.output
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --time=24:00:00
# The paper's comparison under Slurm. Submit it from the top of the clone:
#
#     BATCHSIZE=2 sbatch --ntasks-per-node=4 --gres=gpu:4 jobs/slurm.sh
#
# Site-specific options (partition, account, GPUs) go on the command line. LAUNCH is
# "mpiexec" by default, which starts the ranks with srun (MPICH); for a site's own MPI, use
# for example "srun --mpi=pmix". At the time limit, the job is requeued and resumes.
# See comparison.sh for the other variables.
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
