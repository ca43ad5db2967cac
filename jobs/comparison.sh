#!/bin/sh
# The paper's comparison, on the ranks that a launcher starts:
#
#     sh jobs/comparison.sh mpiexec -n 8
#
# It runs the doctor, then trains noBN, normalBN and multigpuBN, and draws the figures.
# It resumes networks whose training was stopped. The exit status is that of the command
# that failed, or 75 at the time limit; then run the same command again. Variables:
#
#     BATCHSIZE   images per rank (64)
#     SEED        random seed (0)
#     NETWORKS    networks to train (none normal multigpu)
#     OUT         directory of the runs (result)
#     DATA        directory of CIFAR-10 (Chainer's cache)
#     FLAGS       additional flags of train_cifar.py
#     STOP_AFTER  seconds after which a run takes a snapshot and ends (unlimited)
set -eu
cd "$(dirname "$0")/.."
: "${BATCHSIZE:=64}" "${SEED:=0}" "${NETWORKS:=none normal multigpu}" "${OUT:=result}"
: "${DATA:=}" "${FLAGS:=}" "${STOP_AFTER:=}"
begun=$(date +%s)
# PATH may differ on other nodes.
python=$(command -v python)

time_is_up() {
    [ -n "$STOP_AFTER" ] && [ $(($(date +%s) - begun)) -ge "$STOP_AFTER" ]
}

# Runs a command, and sends it SIGUSR1 when the time is up.
limited() {
    if [ -n "$STOP_AFTER" ]; then
        left=$((begun + STOP_AFTER - $(date +%s)))
        set -- timeout --preserve-status --signal=USR1 "$((left > 0 ? left : 1))" "$@"
    fi
    "$@"
}

status=0
"$@" "$python" -m chainer_crossbn doctor --out "$OUT" || status=$?
# 1: there are warnings, but training runs.
[ "$status" -le 1 ] || exit "$status"

for bn in $NETWORKS; do
    name=$bn-b$BATCHSIZE-s$SEED
    status=0
    # FLAGS may be several words.
    # shellcheck disable=SC2086
    time_is_up || limited "$@" "$python" train_cifar.py --resume auto --bn "$bn" \
        --batchsize "$BATCHSIZE" --seed "$SEED" --out "$OUT" --name "$name" \
        ${DATA:+--data "$DATA"} $FLAGS || status=$?
    # A run writes this file last.
    if [ ! -e "$OUT/$name/statistics.json" ]; then
        if time_is_up; then
            echo "comparison.sh: time limit reached at $name; run the same command to continue"
            exit 75
        fi
        echo "comparison.sh: $name did not finish (exit status $status)" >&2
        exit "$((status > 0 ? status : 1))"
    fi
done
exec "$python" plot.py "$OUT"
