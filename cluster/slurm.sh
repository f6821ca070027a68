#!/bin/bash
# One study on the nodes of a Slurm job: sbatch cluster/slurm.sh search --sampler-seed 1
# Submit it in a folder that all nodes share, with hpo and Ray in .venv (pip install -e '.[ray]').
#SBATCH --job-name=hpo
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
# For GPUs: add #SBATCH --gpus-per-node=4, and --gpus-per-trial 0.25 (or 1) to the command.
set -euo pipefail

export PATH="$PWD/.venv/bin:$PATH"

# Whoever reaches an open Ray port runs code as you: the token keeps other users out.
RAY_AUTH_TOKEN=$(openssl rand -hex 32)
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Starts Ray on every node, runs the command on the head node, and stops Ray when the command ends.
# When the job's time is over, Slurm stops the run; the same sbatch command goes on from there.
srun --kill-on-bad-exit=1 ray symmetric-run \
  --address "$head_node:6379" \
  --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" \
  --disable-usage-stats \
  -- hpo run "$@" --pool ray --ray-address auto
