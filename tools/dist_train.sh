#!/usr/bin/env bash
# dist_train.sh CONFIG PROCESSES [flags of train.py]
# On several machines, run it on each with NNODES, NODE_RANK, MASTER_ADDR (and PORT) set.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG PROCESSES [flags of train.py]" >&2
    exit 2
fi
config=$1
processes=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
# yapf, which mmengine imports, makes its cache visible before it has written it: processes that
# start together on a fresh machine could read an empty file. One process writes it here first.
"${PYTHON:-python}" -c 'import yapf.yapflib.yapf_api'
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node-rank="${NODE_RANK:-0}" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" \
    --master-port="${PORT:-29500}" \
    --nproc-per-node="$processes" \
    "$here/train.py" "$config" --launcher pytorch "$@"
