"Files: whatever has a type and a shape comes back as it was, a part left by a kill goes; claims of folders."
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings, strategies as st

from sae_ft.plumbing import files
from sae_ft.plumbing.files import (FolderTaken, digest, end_without_claim, lock, read_tensors, write_tensors,
                                   write_whole)

TYPES = torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool

@settings(max_examples=30, deadline=None)
@given(dtype=st.sampled_from(TYPES), shape=st.lists(st.integers(0, 3), max_size=3), note=st.text(max_size=9))
def test_any_tensor_comes_back(dtype, shape, note, tmp_path_factory):
    path = tmp_path_factory.mktemp('x')/'x.safetensors'
    tensors = dict(a=torch.ones(shape).to(dtype), b=torch.arange(6.).reshape(2, 3).T)
    write_tensors(path, tensors, note=note)
    read, notes = read_tensors(path)
    assert notes == dict(note=note) and digest(read) == digest(tensors)

def test_what_a_kill_left_goes_with_the_next_writing(tmp_path):
    part = tmp_path/'.x.part'
    part.mkdir()
    (part/'half').write_text('of it')
    write_whole(tmp_path/'x', lambda p: p.write_text('whole'))
    assert [o.name for o in tmp_path.iterdir()] == ['x'] and (tmp_path/'x').read_text() == 'whole'

def test_an_error_of_the_writer_passes_and_leaves_nothing(tmp_path):
    (tmp_path/'x').write_text('before')
    with pytest.raises(KeyError): write_whole(tmp_path/'x', lambda p: {}['none'])
    assert [o.name for o in tmp_path.iterdir()] == ['x'] and (tmp_path/'x').read_text() == 'before'

# --- a folder on a disk that machines share

ELSEWHERE = 'filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=abc\nduration=0.6\n'

@pytest.fixture
def claimed(tmp_path, monkeypatch):
    "The claim of a process of another machine, whose locks are not seen here."
    monkeypatch.setattr(files, 'CLAIM', .6)
    (tmp_path/'.claim').write_text(ELSEWHERE)
    return tmp_path/'.claim'

def test_the_claim_of_a_machine_that_is_gone_lapses(claimed):
    start = time.monotonic()
    taken = lock(claimed.parent)
    assert time.monotonic() - start >= .6 and 'elsewhere' not in claimed.read_text()
    taken.release()
    assert not claimed.exists()

def test_a_claim_that_is_renewed_holds(claimed, monkeypatch):
    stop = threading.Event()
    def renew():
        while not stop.wait(.1): os.utime(claimed)
    beat = threading.Thread(target=renew)
    beat.start()
    monkeypatch.setattr(files, 'PATIENCE', 2.)
    try:
        with pytest.raises(FolderTaken, match='another process is at work in'): lock(claimed.parent)
    finally:
        stop.set()
        beat.join()
    assert claimed.read_text() == ELSEWHERE
    lock(claimed.parent).release()   # nothing of the failed try is left

def test_the_claim_of_a_killed_process_is_taken_over_at_once(tmp_path):
    code = 'import os, sys; from pathlib import Path; from sae_ft.plumbing.files import lock;' \
           'taken = lock(Path(sys.argv[1])); os.kill(os.getpid(), 9)'
    subprocess.run([sys.executable, '-c', code, tmp_path])
    assert (tmp_path/'.claim').exists()
    start = time.monotonic()
    lock(tmp_path).release()
    assert time.monotonic() - start < 5   # not the minute of another machine's

def test_who_lost_its_claim_ends(tmp_path):
    code = ('import sys, time; from pathlib import Path; from sae_ft.plumbing import files; files.CLAIM = .6;'
            'taken = files.lock(Path(sys.argv[1])); print("has it", flush=True); time.sleep(60)')
    piped = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    p = subprocess.Popen([sys.executable, '-c', code, tmp_path], **piped)
    p.stdout.readline()
    (tmp_path/'theirs').write_text(ELSEWHERE)
    (tmp_path/'theirs').rename(tmp_path/'.claim')
    said = p.communicate(timeout=30)[1]
    assert p.returncode == -signal.SIGTERM and 'may be another machine' in said

def test_a_claim_that_was_deleted_ends_nobody(monkeypatch, capfd):
    def kill(*args): raise AssertionError('ended')
    monkeypatch.setattr(os, 'kill', kill)
    end_without_claim(SimpleNamespace(reason='marker-missing', lock_file='x'))
    with pytest.raises(AssertionError, match='ended'):
        end_without_claim(SimpleNamespace(reason='refresh-failed', lock_file='x'))
