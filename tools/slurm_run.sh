#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh have in common:
# bash tools/slurm_run.sh PARTITION JOB_NAME TOOL.py [its arguments]
set -euo pipefail
GPUS=${GPUS:-8}
PER_NODE=${GPUS_PER_NODE:-8}
TASKS=${TASKS:-$GPUS}
TOOLS=$(dirname "$0")
[ "$GPUS" = 0 ] || SRUN_ARGS="--gres=gpu:$((GPUS < PER_NODE ? GPUS : PER_NODE)) ${SRUN_ARGS:-}"
# shellcheck disable=SC2086  # several arguments
srun -p "$1" --job-name="$2" --ntasks="$TASKS" \
    --ntasks-per-node="$((TASKS < PER_NODE ? TASKS : PER_NODE))" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$TOOLS/$3" "${@:4}" --launcher slurm
