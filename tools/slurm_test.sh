#!/usr/bin/env bash
# slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [flags of test.py]; see slurm_launch.sh.
exec "$(dirname "$0")/slurm_launch.sh" test CHECKPOINT "$@"
