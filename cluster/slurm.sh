#!/bin/bash
# One study on the nodes of a Slurm job: sbatch cluster/slurm.sh search --sampler-seed 1
# Submit it in a folder that all nodes share, with hpo and Ray in .venv (pip install -e '.[ray]').
#SBATCH --job-name=hpo
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
# For GPUs: add #SBATCH --gpus-per-node=4, and --gpus-per-trial 0.25 (or 1) to the command.
#
# Three minutes before the job's time is over, and when another job takes its nodes, the run stops,
# writes its report, and the job goes back into the queue. There it goes on where it was.
# shellcheck disable=SC2317 # what a trap calls is reached
set -euo pipefail

# After a requeue, --fresh would delete what the job has done so far.
options=()
for option in "$@"; do
  if [[ $option == --more || $option == --more=* ]]; then
    echo "hpo: --more: would count anew after each requeue; give --trials" >&2
    exit 2
  fi
  if [[ $option != --fresh || ${SLURM_RESTART_COUNT:-0} == 0 ]]; then
    options+=("$option")
  fi
done

MOST_RESTARTS=${HPO_MOST_RESTARTS:-20} # a training longer than the job's time would never end

export PATH="$PWD/.venv/bin:$PATH"

# The addresses that Ray finds are wrong where nodes have several networks: set HPO_HEAD_IP there.
head_ip=${HPO_HEAD_IP:-$(python -c 'import ray; print(ray.util.get_node_ip_address())')}
address=$head_ip:$((20000 + SLURM_JOB_ID % 10000)) # jobs may share a node
temporary=/tmp/hpo-ray-$SLURM_JOB_ID
cpus=${SLURM_CPUS_PER_TASK:-1}

# Whoever reaches an open Ray port runs code as you: the token keeps other users out.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0

steps=()
start_node() { # NODE OPTION…: starts Ray there, until this job ends its step
  local node=$1
  shift
  srun --nodes=1 --ntasks=1 --nodelist="$node" --cpus-per-task="$cpus" \
    ray start --num-cpus="$cpus" --disable-usage-stats --block "$@" >"ray-$SLURM_JOB_ID-$node.log" 2>&1 &
  steps+=($!)
}

end_nodes() { # a node that does not end in time is left to Slurm, which ends all steps of a job
  kill "${steps[@]}" 2>/dev/null || true
  for _ in {1..100}; do
    kill -0 "${steps[@]}" 2>/dev/null || break
    sleep 0.3
  done
  kill -KILL "${steps[@]}" 2>/dev/null || true
  rm -rf "$temporary"
}
trap end_nodes EXIT

# The first node of a job runs this script, Ray's head and hpo; the others join it.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
start_node "${nodes[0]}" --head --node-ip-address="$head_ip" --port="${address##*:}" \
  --include-dashboard=false --temp-dir="$temporary"
for node in "${nodes[@]:1}"; do
  start_node "$node" --address="$address"
done

# hpo begins with the nodes that are there and takes each other one as it comes: a node that never
# comes is only missed. Without any node in 5 minutes, it ends with a line.
run='' heard=''
stop() { # SIGNAL
  heard=$1 interrupted=yes
  [[ -z $run ]] || kill -TERM "$run" 2>/dev/null || true
}
trap 'stop USR1' USR1
trap 'stop TERM' TERM
hpo run "${options[@]}" --pool ray --ray-address "$address" --nodes "${#nodes[@]}" &
run=$!
[[ -z $heard ]] || stop "$heard"

interrupted=yes
while [[ $interrupted ]]; do # a signal ends `wait`, too
  interrupted=''
  code=0
  wait "$run" || code=$?
done

goes_on() { # whether Slurm has stopped the run, and not the user by scancel
  ((code != 0 && code != 2)) || return 1
  [[ $heard == USR1 ]] || { [[ $heard == TERM ]] && is_running; }
}
is_running() { # a cancelled job gets SIGTERM, too, but Slurm does not call it running any more
  [[ $(scontrol show job --oneliner "$SLURM_JOB_ID") == *JobState=RUNNING* ]]
}

if goes_on && ((${SLURM_RESTART_COUNT:-0} >= MOST_RESTARTS)); then
  echo "hpo: stopped by Slurm after $MOST_RESTARTS restarts; sbatch goes on from here" >&2
elif goes_on; then
  echo "hpo: stopped by Slurm; job $SLURM_JOB_ID goes back into the queue and goes on from here" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
