#!/usr/bin/env bash
# Run a sweep as an array of small jobs. Each task searches its own part of the seeds on one core, without Ray.
#
#     SWEEP=paper.yaml OUT=results/paper-parts sbatch --array=1-16 array.sh [options of the sweep]
#     topdown-ray merge results/paper results/paper-parts/*      # when all tasks have ended
#
# Submit it from an environment that has `topdown-ray`, in a folder that all nodes share. To continue the sweep,
# submit the same command again. To submit only some of 16 parts again: PARTS=16 sbatch --array=3,5 array.sh
# docs/guides/slurm.md explains the details.
#SBATCH --job-name=topdown-ray
#SBATCH --array=1-8
#SBATCH --cpus-per-task=1
#SBATCH --mem=3G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@120
set -euo pipefail

SWEEP=${SWEEP:-paper.yaml}
OUT=${OUT:-results/paper-parts}
PARTS=${PARTS:-$SLURM_ARRAY_TASK_COUNT}

part=$SLURM_ARRAY_TASK_ID
topdown-ray sweep "$SWEEP" --part "$part/$PARTS" --out "$OUT/$part" --address none "$@" &
sweep=$!

# Two minutes before the time limit, Slurm sends USR1 to this shell, which stops the sweep and queues the task again.
# When Slurm pre-empts or cancels the task, it sends TERM, and it queues a pre-empted task again by itself.
trap 'kill $sweep; wait; exec scontrol requeue "$SLURM_JOB_ID"' USR1
trap 'kill $sweep; wait; exit 143' TERM
wait $sweep
