#!/usr/bin/env bash
# Run a sweep on all cores of several nodes, as one job with one Ray cluster and one result folder.
#
#     SWEEP=paper.yaml OUT=results/paper sbatch --nodes=4 --time=02:00:00 cluster.sh [options of the sweep]
#
# Submit it from an environment that has `topdown-ray`, in a folder that all nodes share. To continue the sweep,
# submit the same command again. docs/guides/slurm.md explains the details.
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

# This shell runs on the first node of the job. Ray's head and the driver of the sweep run there as well.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Without a token, everyone who can reach the port of the head could run programs under your account.
RAY_AUTH_TOKEN=$(od -A n -N 32 -t x1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

# The first variable is the time limit in seconds for all nodes to start (Ray's default is 30). The second is how long
# a node waits for a head that has gone (Ray's default is 60). It must be longer than `ray stop` takes on the head,
# which is up to 16 seconds.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300 RAY_gcs_rpc_server_reconnect_timeout_s=30

# The nodes must be exclusive, because Ray uses all of their cores and `ray symmetric-run` ends with `ray stop`, which
# stops every Ray process of yours on a node. Without --cpu-bind=none, Slurm may bind all actors of a node to
# one core.
srun --cpu-bind=none ray symmetric-run --address "$head:$PORT" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
  topdown-ray sweep "$SWEEP" --out "$OUT" --address auto "$@" &
all=$!

# Three minutes before the time limit, Slurm sends USR1 to this shell. The shell then stops the sweep, or everything if
# the sweep has not begun, and queues the job again. When Slurm pre-empts or cancels the job, it sends TERM to all
# processes, and it queues a pre-empted job again by itself.
sweep='^[^ ]*python[^ ]* [^ ]*topdown-ray sweep '
trap 'pkill -TERM -f "$sweep" || kill $all || true; wait; exec scontrol requeue "$SLURM_JOB_ID"' USR1
trap 'wait; exit 143' TERM
wait $all

# Check that the sweep is complete, because `ray symmetric-run` exits with status 0 even if Ray did not start.
topdown-ray status "$OUT" --json | grep -q '"state": "complete"'
