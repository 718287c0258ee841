#!/usr/bin/env bash
# One sweep on all cores of several nodes: one job, one Ray cluster, one result folder.
#
#     SWEEP=paper.yaml OUT=results/paper sbatch --nodes=4 --time=02:00:00 cluster.sh [options of the sweep]
#
# Submit it where `topdown-ray` works, in a folder that all nodes share. The same command continues the sweep,
# whatever ended the job.
#SBATCH --job-name=topdown-ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
set -euo pipefail

SWEEP=${SWEEP:-paper.yaml}
OUT=${OUT:-results/paper}
PORT=${PORT:-6379}

# This shell runs on the first node of the job, where Ray's head and the sweep's driver run, too.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Without a token, everyone who reaches the head's port could run programs in your name.
RAY_AUTH_TOKEN=$(od -A n -N 32 -t x1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

# Seconds until all nodes must have started (Ray's default: 30), and how long a node stays after its head has gone
# (60). The second must be longer than `ray stop` takes on the head, which is up to 16.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 RAY_gcs_rpc_server_reconnect_timeout_s=30

# The nodes must be exclusive: Ray uses all of their cores, and `ray symmetric-run` ends with `ray stop`, which stops
# every Ray of yours on a node. Without --cpu-bind=none, Slurm may bind all actors of a node to one core.
srun --cpu-bind=none ray symmetric-run --address "$head:$PORT" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
  topdown-ray sweep "$SWEEP" --out "$OUT" --address auto "$@" &
all=$!

# Three minutes before the time limit, Slurm sends USR1 to this shell: stop the sweep, or all if it has not begun, and
# queue the job again. When it preempts or cancels the job, Slurm sends TERM to all processes, and queues a preempted
# job again by itself.
sweep='^[^ ]*python[^ ]* [^ ]*topdown-ray sweep '
trap 'pkill -TERM -f "$sweep" || kill $all || true; wait; exec scontrol requeue "$SLURM_JOB_ID"' USR1
trap 'wait; exit 143' TERM
wait $all

# `ray symmetric-run` succeeds even if Ray did not start.
topdown-ray status "$OUT" --json | grep -q '"state": "complete"'
