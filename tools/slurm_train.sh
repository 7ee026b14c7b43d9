#!/usr/bin/env bash
# slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [flags of train.py]; see slurm_launch.sh.
exec "$(dirname "$0")/slurm_launch.sh" train WORK_DIR "$@"
