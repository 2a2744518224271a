#!/usr/bin/env bash
# bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of
# train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS as in MMPretrain.
# Without GPUs: GPUS=0 TASKS=8. Before its time limit, let Slurm send SIGTERM
# (SRUN_ARGS='--signal=TERM@120'): the run saves, and --resume goes on.
set -euo pipefail
bash "$(dirname "$0")/slurm_run.sh" "$1" "$2" train.py "$3" --work-dir "$4" "${@:5}"
