"""One process of several fails: the others end within seconds, and its message is the last."""

from __future__ import annotations

import json
import time

import pytest
from helpers import ROOT, SMALL_STAGE_ONE, STAGE_ONE, launch, run_tool

SENTENCES = dict(
    kill='Signal 9 (SIGKILL)',
    sentence='error: this rank has a fault',
    error='ValueError: this rank has a fault',
    nan='with pixels that are not finite; no checkpoint was written before. Remove damaged',
)
FAILING = """
import sys
import ipirm_mm
from ipirm_mm import cli, errors

def main():
    raise getattr(errors, sys.argv[1], ValueError)('a fault')

cli.run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize('how', SENTENCES)
def test_others_end_within_seconds(tmp_path, how):
    config = tmp_path / 'run.py'
    config.write_text(
        f'_base_ = [{str(ROOT / STAGE_ONE)!r}]\n'
        "custom_imports = dict(imports=['ipirm_mm', 'signal_at'], allow_failed_imports=False)\n"
        f"custom_hooks = [*_base_.custom_hooks, dict(type='FailAt', iteration=6, how={how!r})]\n"
    )
    options = (*SMALL_STAGE_ONE, 'train_cfg.max_epochs=3', 'train_dataloader.batch_size=32')
    given = (config, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    finished = launch('train', 2, *given, check=False)
    seconds = time.time() - (tmp_path / 'run/failed').stat().st_mtime
    print(f'{how}: {seconds:.1f} s')
    assert finished.returncode == 1
    assert seconds < 10  # without load, 3
    report = finished.stderr.rpartition('Root Cause')[2]
    assert SENTENCES[how] in report and 'rank      : 1' in report
    assert 'gloo' not in finished.stderr
    if how != 'nan':  # of which all ranks learn
        assert 'rank 0 stops, because another process of the run has ended' in finished.stderr


@pytest.mark.parametrize(
    'kind,message', [('UserError', 'error: a fault'), ('other', 'ValueError: a fault')]
)
def test_the_launcher_is_told_the_message(tmp_path, kind, message):
    script, told = tmp_path / 'fail.py', tmp_path / 'error.json'
    script.write_text(FAILING)
    finished = run_tool(script, kind, check=False, TORCHELASTIC_ERROR_FILE=told)
    assert finished.returncode == 1
    text = json.loads(told.read_text())['message']['message']
    assert message in text and text.strip() in finished.stderr
    assert ('Traceback' in text) == (kind == 'other')
