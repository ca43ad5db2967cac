#!/bin/sh
# The paper's comparison, on the ranks that a launcher starts:
#
#     sh jobs/comparison.sh mpiexec -n 8
#
# First the doctor; then noBN, normalBN and multigpuBN in turn, each gone on with where it
# was stopped; then the figures. Exit status: that of what failed, or 75 where the time
# was up: the same command goes on. Variables:
#
#     BATCHSIZE   images a rank (64)
#     SEED        (0)
#     NETWORKS    (none normal multigpu)
#     OUT         directory that gathers the runs (result)
#     DATA        where CIFAR-10 lies (Chainer's cache)
#     FLAGS       more flags of train_cifar.py
#     STOP_AFTER  seconds until a snapshot is taken and all ends (never)
set -eu
cd "$(dirname "$0")/.."
: "${BATCHSIZE:=64}" "${SEED:=0}" "${NETWORKS:=none normal multigpu}" "${OUT:=result}"
: "${DATA:=}" "${FLAGS:=}" "${STOP_AFTER:=}"
begun=$(date +%s)
# Other nodes may have another PATH.
python=$(command -v python)

time_is_up() {
    [ -n "$STOP_AFTER" ] && [ $(($(date +%s) - begun)) -ge "$STOP_AFTER" ]
}

# Runs a command, to which SIGUSR1 is sent when the time is up.
limited() {
    if [ -n "$STOP_AFTER" ]; then
        left=$((begun + STOP_AFTER - $(date +%s)))
        set -- timeout --preserve-status --signal=USR1 "$((left > 0 ? left : 1))" "$@"
    fi
    "$@"
}

status=0
"$@" "$python" -m chainer_crossbn doctor --out "$OUT" || status=$?
# 1: something will hurt, but it runs.
[ "$status" -le 1 ] || exit "$status"

for bn in $NETWORKS; do
    name=$bn-b$BATCHSIZE-s$SEED
    status=0
    # FLAGS are several words.
    # shellcheck disable=SC2086
    time_is_up || limited "$@" "$python" train_cifar.py --resume auto --bn "$bn" \
        --batchsize "$BATCHSIZE" --seed "$SEED" --out "$OUT" --name "$name" \
        ${DATA:+--data "$DATA"} $FLAGS || status=$?
    # Written last.
    if [ ! -e "$OUT/$name/statistics.json" ]; then
        if time_is_up; then
            echo "comparison.sh: the time is up at $name; the same command goes on"
            exit 75
        fi
        echo "comparison.sh: $name did not come to its end (exit status $status)" >&2
        exit "$((status > 0 ? status : 1))"
    fi
done
exec "$python" plot.py "$OUT"
