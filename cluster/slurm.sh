#!/usr/bin/env bash
# A sweep under Slurm: a Ray head on the first node, a worker on each other, the sweep on the head.
#
#   sbatch --nodes 4 cluster/slurm.sh --preset digits --sweep-id digits-1
#   sbatch --nodes 4 --gpus-per-node 2 cluster/slurm.sh --preset cifar10-rnp --sweep-id rnp-1
#
# Submit from the repository's root, on a file system that all nodes share. Two minutes before its
# time is up the sweep is asked to end; submitted again with the same --sweep-id it goes on.
#SBATCH --job-name=frontier
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

PYTHON=${PYTHON:-.venv/bin/python}
export PATH="$(dirname "$(realpath --no-symlinks "$PYTHON")"):$PATH"
export RUNTIME_PRUNING_RESULTS=${RUNTIME_PRUNING_RESULTS:-$PWD/results}
# Other users reach the ports of a Slurm node: whoever has no token may not use this cluster.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_ip=$(srun --nodes=1 --ntasks=1 -w "${nodes[0]}" hostname -I | awk '{print $1}')
# Several jobs may share a node.
port=$((20000 + SLURM_JOB_ID % 20000))
cpus=${SLURM_CPUS_PER_TASK:-1}
export SRUN_CPUS_PER_TASK=$cpus # srun does not take it over from sbatch
gpus=${SLURM_GPUS_ON_NODE:-0}
export RAY_ADDRESS="$head_ip:$port"

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
srun --nodes=1 --ntasks=1 -w "${nodes[0]}" --overlap \
    ray start --head --block --node-ip-address="$head_ip" --port="$port" \
    --num-cpus="$cpus" --num-gpus="$gpus" --include-dashboard=false &
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 -w "$node" --overlap \
        ray start --block --address="$RAY_ADDRESS" --num-cpus="$cpus" --num-gpus="$gpus" &
done
# A sweep refuses trials that no node can hold, so all are to be there before.
python cluster/wait_for_nodes.py "${#nodes[@]}"

sweep=
trap 'if [ -n "$sweep" ]; then kill -TERM "$sweep"; else exit 143; fi' TERM
python sweeps/frontier.py "$@" &
sweep=$!
# The signal ends a wait at once, before the sweep has ended.
code=0
wait "$sweep" || code=$?
while kill -0 "$sweep" 2>/dev/null; do
    code=0
    wait "$sweep" || code=$?
done
exit "$code"
