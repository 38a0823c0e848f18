#!/bin/bash
# Train on four nodes with four ranks each. A run that a node's end or the time limit stopped goes on where it was, on
# as many nodes as are there then:   sbatch examples/slurm.sh
#SBATCH --job-name=numpyvit
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
export OPENBLAS_NUM_THREADS=1

out=runs/imagenet
resume=()
[ -e "$out/state.safetensors" ] && resume=(--resume)
# --kill-on-bad-exit: a rank that dies ends the others, instead of leaving them waiting for it
srun --mpi=pmi2 --kill-on-bad-exit=1 numpyvit train --ranks mpi --threads "$SLURM_CPUS_PER_TASK" \
    --data imagenet/ --model vit_small_patch16_224 --batch-size 1024 --shards 64 --out "$out" "${resume[@]}"
