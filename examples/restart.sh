#!/bin/bash
# Begin a run again until it ends well, on as many ranks as RANKS says each time:
#     RANKS=4 examples/restart.sh --data mnist --data-dir ~/mnist --out runs/mnist
set -u
out=
for ((i = 1; i < $#; i++)); do
    [ "${!i}" = --out ] && next=$((i + 1)) && out=${!next}
done
[ -n "$out" ] || { echo "restart.sh: name the run directory with --out" >&2; exit 2; }

for attempt in 1 2 3 4 5; do
    if [ -e "$out/config.json" ]; then resume=--resume; else resume=; fi
    mpirun -n "${RANKS:-2}" numpyvit train "$@" $resume && exit 0
    code=$?
    case $code in 2 | 130 | 143) exit "$code" ;; esac # bad usage, Ctrl-C, SIGTERM
    echo "restart.sh: attempt $attempt ended with code $code" >&2
    sleep 1
done
exit "$code"
