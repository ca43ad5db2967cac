#!/bin/sh
#$ -N comparison
#$ -cwd
#$ -j y
#$ -o comparison.output
#$ -l node_f=2
#$ -l h_rt=24:00:00
# The paper's comparison under Altair Grid Engine, as on TSUBAME 4 (a node_f is a whole
# node with 4 GPUs; 24 hours is the limit). Submit it from the top of the clone:
#
#     qsub -g GROUP -v BATCHSIZE=2 jobs/age.sh
#
# If the job reaches its time limit, submit it again; with "-hold_jid comparison" a second
# job waits for the first. MODULES are the modules to load; their MPI must be the one that
# mpi4py loads (docs/clusters.md). LAUNCH starts RANKS ranks; by default it is Open MPI's
# mpirun. See comparison.sh for the other variables.
set -eu
: "${RANKS:=8}" "${RANKS_PER_NODE:=4}" "${MODULES=cuda openmpi}" "${VENV=.venv}"
# Ten minutes less than h_rt.
: "${STOP_AFTER:=85800}"
export STOP_AFTER
if [ -n "$MODULES" ]; then
    . /etc/profile.d/modules.sh
    # MODULES may be several words.
    # shellcheck disable=SC2086
    module load $MODULES
fi
if [ -n "$VENV" ]; then
    . "$VENV/bin/activate"
fi
# LAUNCH may be several words; -x passes variables to other nodes.
# shellcheck disable=SC2086
exec sh jobs/comparison.sh ${LAUNCH:-mpirun -npernode "$RANKS_PER_NODE" -x PATH \
    -x LD_LIBRARY_PATH -n "$RANKS"}
