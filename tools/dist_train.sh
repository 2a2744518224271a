#!/usr/bin/env bash
# bash tools/dist_train.sh CONFIG GPUS [arguments of train.py]
# Without a GPU the ranks are CPU processes. Several machines: set NNODES,
# NODE_RANK, MASTER_ADDR and PORT, as in MMPretrain.
set -euo pipefail
CONFIG=$1
GPUS=$2
TOOLS=$(dirname "$0")
"${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
