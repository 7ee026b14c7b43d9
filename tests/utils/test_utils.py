"""Files that are written whole or not at all, checks of checkpoints, and pickles without code."""

from __future__ import annotations

import collections
import io
import os
import pickle

import numpy as np
import pytest
import torch

from ipirm_mm.errors import UserError
from ipirm_mm.utils import (
    atomic_open,
    atomic_write,
    check_checkpoint,
    check_writable,
    safe_load,
    why_damaged,
)


def test_what_can_be_written(tmp_path, monkeypatch):
    file = tmp_path / 'file'
    file.touch()
    for free in (None, file, str(tmp_path / 'new/folder/x'), 'x'):
        check_writable(free)
    for free in (tmp_path, tmp_path / 'new/folder', '.'):
        check_writable(free, folder=True)
    with pytest.raises(UserError, match='because it is a folder: give a file in it'):
        check_writable(tmp_path)
    for path, folder in ((file / 'x', False), (file / 'new/x', False), (file, True)):
        with pytest.raises(UserError, match=f'because {file} is no folder'):
            check_writable(path, folder)
    assert os.listdir(tmp_path) == ['file']
    monkeypatch.setattr(os, 'access', lambda path, mode: path != tmp_path)
    for path, folder in ((tmp_path / 'x', False), (tmp_path / 'new/x', False), (tmp_path, True)):
        with pytest.raises(UserError, match=f'you have no right to write to {tmp_path}:'):
            check_writable(path, folder)


def test_atomic_write(tmp_path):
    path = tmp_path / 'new/folder/a.txt'
    atomic_write(path, 'grün')
    assert path.read_bytes() == 'grün'.encode()
    atomic_write(str(path), b'\x00\x01')
    assert path.read_bytes() == b'\x00\x01'
    assert os.listdir(path.parent) == ['a.txt']


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path):
    path = tmp_path / 'a.bin'
    with pytest.raises(RuntimeError, match='in the middle'), atomic_open(path) as stream:
        stream.write(b'half')
        raise RuntimeError('in the middle')
    assert os.listdir(tmp_path) == []
    atomic_write(path, b'whole')
    with pytest.raises(RuntimeError), atomic_open(path) as stream:
        stream.write(b'half')
        stream.flush()
        assert path.read_bytes() == b'whole'  # nobody sees the half
        raise RuntimeError
    assert path.read_bytes() == b'whole' and os.listdir(tmp_path) == ['a.bin']


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.bin'
    atomic_write(path, b'whole')

    def replace(source, target):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', replace)
    with pytest.raises(OSError, match='No space left'):
        atomic_write(path, b'other')
    assert path.read_bytes() == b'whole' and os.listdir(tmp_path) == ['a.bin']


def test_check_checkpoint(tmp_path):
    path = tmp_path / 'a.pth'
    with pytest.raises(UserError, match=f'^there is no checkpoint {path} of x: train it$'):
        check_checkpoint(str(path), ' of x: train it')
    torch.save(dict(a=torch.zeros(1000)), path)
    check_checkpoint(str(path))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r'a.pth is truncated \(2,000 bytes\)'):
        check_checkpoint(str(path))
    path.write_bytes(b'')
    with pytest.raises(UserError, match=r'a.pth is truncated \(0 bytes\)'):
        check_checkpoint(str(path))
    check_checkpoint(None)
    check_checkpoint('https://download.openmmlab.com/a.pth')


def test_a_changed_bit_is_found_or_changes_nothing(tmp_path):
    """Any bit of the file: checksums cover the tensors, and the rest is refused or not read."""
    saved = dict(epoch=1, state_dict={str(n): torch.randn(20) for n in range(3)})
    path = tmp_path / 'a.pth'
    torch.save(saved, path)
    data = path.read_bytes()
    found = 0
    # About every third byte, another bit each time; the 0x10 of a part's attributes as well.
    flips = [(position, 1 << position % 8) for position in range(0, len(data), 3)]
    start = data.index(b'PK\x01\x02', data.index(b'PK\x01\x02') + 1)
    for position, bit in [*flips, (start + 38, 0x10)]:
        changed = bytearray(data)
        changed[position] ^= bit
        path.write_bytes(changed)
        if why_damaged(path):
            found += 1
            continue
        try:
            loaded = torch.load(path, weights_only=True)
        except Exception:  # refused with an error of any type
            continue
        assert loaded['epoch'] == 1 and loaded['state_dict'].keys() == saved['state_dict'].keys()
        for name, value in saved['state_dict'].items():
            assert torch.equal(loaded['state_dict'][name], value), position
    assert found > len(flips) / 2
    with pytest.raises(UserError, match=r'a.pth is damaged \(its part a/data.1 is not as it was'):
        changed = data.replace(saved['state_dict']['1'].numpy().tobytes(), bytes(80))
        path.write_bytes(changed)
        check_checkpoint(str(path))


def reload(value, protocol=pickle.DEFAULT_PROTOCOL):
    return safe_load(io.BytesIO(pickle.dumps(value, protocol)))


@pytest.mark.parametrize('protocol', [2, 3, 4])
def test_safe_load_reads_tensors_arrays_and_numbers(protocol):
    value = [
        dict(score=torch.rand(3), label=torch.tensor([2]), path='a.png', size=(4, 5.0, None)),
        collections.OrderedDict(array=np.arange(6.0).reshape(2, 3), number=np.float32(0.5)),
        dict(bytes=b'\x00\xff', flag=True),
    ]
    found = reload(value, protocol)
    assert torch.equal(found[0]['score'], value[0]['score'])
    assert torch.equal(found[0]['label'], value[0]['label'])
    assert found[0]['path'] == 'a.png' and found[0]['size'] == (4, 5.0, None)
    assert np.array_equal(found[1]['array'], value[1]['array']) and found[1]['number'] == 0.5
    assert found[2] == value[2]


class Runs:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'call,name',
    [
        (Runs(os.mkdir, 'evil'), r'posix.mkdir'),
        (Runs(eval, '1'), 'builtins.eval'),
        (Runs(getattr, 'a', 'upper'), 'builtins.getattr'),
        (Runs(torch.load, 'evil.pth'), 'torch.serialization.load'),
        (Runs(np.load, 'evil.npy'), 'numpy.*load'),
    ],
)
def test_safe_load_runs_no_function_of_a_file(call, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match=f'{name} is not allowed'):
        reload([call])
    assert os.listdir(tmp_path) == []


def test_safe_load_does_not_run_a_pickle_within_a_tensor(tmp_path, monkeypatch):
    """The storage of a tensor is a file of torch.save, which could hold another pickle."""
    monkeypatch.chdir(tmp_path)
    inner = io.BytesIO()
    torch.save(Runs(os.mkdir, 'evil'), inner)
    outer = Runs(torch.storage._load_from_bytes, inner.getvalue())
    with pytest.raises(pickle.UnpicklingError):
        reload(outer)
    assert os.listdir(tmp_path) == []


def test_safe_load_encodes_only_bytes():
    import codecs

    assert reload(Runs(codecs.encode, 'aÿ', 'latin1')) == b'a\xff'
    with pytest.raises(pickle.UnpicklingError, match='encoding rot13'):
        reload(Runs(codecs.encode, 'a', 'rot13'))
