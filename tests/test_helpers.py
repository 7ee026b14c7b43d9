"""A run in a fork is like one in a new process, or the tests of tools would prove nothing."""

from __future__ import annotations

import json

import pytest
from helpers import ROOT, run_python, run_tool

REPORT = """
import json, os, sys
import numpy as np
import torch
{before}
json.dump(dict(
    ours=[name for name in sys.modules if name.startswith('ipirm_mm')],
    tests=[name for name in sys.modules if name.startswith(('_pytest', 'helpers'))],
    argv=sys.argv, cwd=os.getcwd(), path=sys.path, main=__name__, kind=str(torch.get_default_dtype()),
    threads=torch.get_num_threads(), variable=os.environ.get('VARIABLE'),
), sys.stdout)
print('to standard error', file=sys.stderr)
torch.set_default_dtype(torch.float64)
os.environ['VARIABLE'] = 'of an earlier run'
os.chdir('/')
import ipirm_mm
{after}
"""


@pytest.fixture
def script(tmp_path):
    def write(before='', after=''):
        path = tmp_path / 'script.py'
        path.write_text(REPORT.format(before=before, after=after))
        return path

    return write


@pytest.mark.slow
def test_a_fork_is_like_a_new_process(script):
    path = script()
    reports = []
    for start in (run_python, run_tool, run_tool):  # the third comes after one that left traces
        finished = start(path, 'a', 'b c')
        assert 'to standard error' in finished.stderr
        reports.append(json.loads(finished.stdout))
    new, first, second = reports
    assert new['argv'] == [str(path), 'a', 'b c'] and new['cwd'] == str(ROOT)
    assert new['ours'] == new['tests'] == [] and new['threads'] == 1
    assert first == second == new
    assert json.loads(run_tool(path, VARIABLE=3).stdout)['variable'] == '3'


@pytest.mark.parametrize(
    'line,status,message',
    [
        ('sys.exit(3)', 3, ''),
        ("sys.exit('a sentence')", 1, 'a sentence'),
        ("raise ValueError('a fault')", 1, 'ValueError: a fault'),
        ('os.kill(os.getpid(), 9)', -9, ''),
        ("import atexit; atexit.register(print, 'at the end', file=sys.stderr)", 0, 'at the end'),
    ],
)
def test_a_fork_ends_like_a_new_process(script, line, status, message):
    finished = run_tool(script(after=line), check=False)
    assert finished.returncode == status
    assert message in finished.stderr
    if status:
        with pytest.raises(AssertionError):
            run_tool(script(after=line))


@pytest.mark.parametrize('draw', ['np.random.rand()', 'torch.rand(1).item()'])
def test_forks_draw_different_numbers(script, draw):
    path = script(before=f'print({draw}); raise SystemExit')
    assert run_tool(path).stdout != run_tool(path).stdout
