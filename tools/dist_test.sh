#!/usr/bin/env bash
# dist_test.sh CONFIG CHECKPOINT PROCESSES [flags of test.py]
# For the config of an ensemble give '' as CHECKPOINT.
# On several machines, run it on each with NNODES, NODE_RANK, MASTER_ADDR (and PORT) set.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT PROCESSES [flags of test.py]" >&2
    exit 2
fi
config=$1
checkpoint=$2
processes=$3
shift 3
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
    "$here/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
