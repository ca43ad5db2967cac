#!/bin/sh
# The paper's comparison by mpiexec alone, on this machine or the hosts of a file:
#
#     RANKS=8 BATCHSIZE=2 sh jobs/hostfile.sh [HOSTFILE]
#
# A line of HOSTFILE is "host:ranks" for MPICH and Intel MPI, and "host slots=ranks" for
# Open MPI. All hosts have this directory and Python at the same path, and take ssh
# without a password. See comparison.sh for the variables.
set -eu
here=$(dirname "$0")
set -- mpiexec -n "${RANKS:-8}" ${1:+-hostfile "$1"}
exec sh "$here/comparison.sh" "$@"
