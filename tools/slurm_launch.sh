#!/usr/bin/env bash
# The part that slurm_train.sh and slurm_test.sh share: slurm_launch.sh TOOL NAME_OF_FOURTH ARGUMENTS...
# Environment variables: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5); SRUN_ARGS (more flags of srun).
set -euo pipefail
tool=$1
fourth=$2
shift 2
if [ $# -lt 4 ]; then
    echo "usage: slurm_$tool.sh PARTITION JOB_NAME CONFIG $fourth [flags of $tool.py]" >&2
    exit 2
fi
partition=$1
job_name=$2
arguments=("$3")
if [ "$tool" = train ]; then
    arguments+=("--work-dir=$4")
else
    arguments+=("$4")
fi
shift 4
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
# yapf, which mmengine imports, makes its cache visible before it has written it: processes that
# start together on a fresh machine could read an empty file. One process writes it here first;
# where only the tasks have this Python (a container in SRUN_ARGS), it cannot.
"${PYTHON:-python}" -c 'import yapf.yapflib.yapf_api' 2> /dev/null || true
# shellcheck disable=SC2086  # SRUN_ARGS holds several flags
exec srun -p "$partition" \
    --job-name="$job_name" \
    --gres=gpu:"$per_node" \
    --ntasks="$gpus" \
    --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$here/$tool.py" "${arguments[@]}" --launcher=slurm "$@"
