#!/bin/sh
# The paper's comparison with mpiexec, on this machine or on the hosts of a file:
#
#     RANKS=8 BATCHSIZE=2 sh jobs/hostfile.sh [HOSTFILE]
#
# Each line of HOSTFILE is "host:ranks" for MPICH and Intel MPI, or "host slots=ranks" for
# Open MPI. All hosts need this directory and Python at the same path, and ssh without a
# password. See comparison.sh for the variables.
set -eu
here=$(dirname "$0")
set -- mpiexec -n "${RANKS:-8}" ${1:+-hostfile "$1"}
exec sh "$here/comparison.sh" "$@"
