#!/usr/bin/env bash
# One sweep as an array of small jobs: each task searches its own part of the seeds on one core, without Ray.
#
#     SWEEP=paper.yaml OUT=results/paper-parts sbatch --array=1-16 array.sh [options of the sweep]
#     topdown-ray merge results/paper results/paper-parts/*      # when all tasks have ended
#
# Submit it where `topdown-ray` works, in a folder that all nodes share. The same command continues the sweep,
# whatever ended the tasks. To submit only some parts again: PARTS=16 sbatch --array=3,5 array.sh
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

# Two minutes before the time limit, Slurm sends USR1 to this shell: stop the sweep and queue the task again.
# When it preempts or cancels the task, Slurm sends TERM, and queues a preempted task again by itself.
trap 'kill $sweep; wait; exec scontrol requeue "$SLURM_JOB_ID"' USR1
trap 'kill $sweep; wait; exit 143' TERM
wait $sweep
