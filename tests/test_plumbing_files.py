"Files: whatever has a type and a shape comes back as it was, damage is said, a kill's rest goes; claims."
import json, os, random, signal, subprocess, sys, threading, time
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors import safe_open

from sae_ft.plumbing import files
from sae_ft.plumbing.files import (FolderTaken, Journal, digest, end_without_claim, lock, read_json,
                                   read_tensors, sealed, write_json, write_tensors, write_whole)

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

@settings(max_examples=30, deadline=None)
@given(notes=st.dictionaries(st.text(max_size=4), st.text(max_size=9), max_size=6))
def test_the_same_contents_are_the_same_bytes(notes, tmp_path_factory):
    path = tmp_path_factory.mktemp('x')/'x.safetensors'
    notes = {k: v for k, v in notes.items() if k not in ('path', 'tensors', 'sha256', 'format')}
    def written(notes):
        write_tensors(path, dict(a=torch.ones(3)), **notes)
        return path.read_bytes()
    first = written(notes)
    assert all(written(dict(random.sample([*notes.items()], len(notes)))) == first for _ in range(3))
    assert read_tensors(path)[1] == notes

def test_other_libraries_take_our_tensors_for_theirs(tmp_path):
    write_tensors(tmp_path/'x.safetensors', dict(a=torch.ones(3)), step='3')
    with safe_open(tmp_path/'x.safetensors', 'pt') as f: assert f.metadata()['format'] == 'pt'
    write_tensors(tmp_path/'y.safetensors', dict(a=torch.ones(3)), format='sae_ft.TopKSAE')
    assert read_tensors(tmp_path/'y.safetensors')[1] == dict(format='sae_ft.TopKSAE')

LINE = st.dictionaries(st.text(max_size=5).filter(lambda o: o != 'crc32'),
                       st.none() | st.floats() | st.integers() | st.text(max_size=5), max_size=4)

@settings(max_examples=50, deadline=None)
@given(lines=st.lists(LINE, min_size=1, max_size=4))
def test_any_line_comes_back(lines, tmp_path_factory):
    journal = Journal(tmp_path_factory.mktemp('x')/'x.jsonl')
    for o in lines: journal.add(**o)
    assert json.dumps(journal.read()) == json.dumps(lines)
    journal.path.write_text(''.join(json.dumps(o) + '\n' for o in lines))  # as older versions did
    assert json.dumps(journal.read()) == json.dumps(lines)

def test_a_line_without_a_checksum_among_others_is_damaged(tmp_path):
    journal = Journal(tmp_path/'x.jsonl')
    for i in range(3): journal.add(step=i)
    whole = journal.path.read_text()
    journal.path.write_text(whole.replace('crc32', 'crc33', 1))
    with pytest.raises(ValueError, match=r"line 1 of '.*x.jsonl' is damaged: take the"): journal.read()

def test_sealed_json_is_checked_and_other_json_is_not(tmp_path):
    write_json(tmp_path/'x.json', sealed(dict(lr=.1, names=['a', None])))
    assert read_json(tmp_path/'x.json') == dict(lr=.1, names=['a', None])
    (tmp_path/'x.json').write_text((tmp_path/'x.json').read_text().replace('0.1', '0.3'))
    with pytest.raises(ValueError, match='is damaged: its checksum .*; if you changed it, delete its crc32'):
        read_json(tmp_path/'x.json')
    write_json(tmp_path/'x.json', dict(lr=.1))
    assert read_json(tmp_path/'x.json') == dict(lr=.1)

@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='Linux has a file that is always full')
def test_a_record_on_a_full_disk():
    with pytest.raises(OSError) as error: Journal('/dev/full').add(step=1)
    assert '(No space left on device), since it needs 0.0 MB and' in str(error.value)

def test_what_helps_depends_on_what_the_system_said(tmp_path):
    def says(write, path):
        with pytest.raises(OSError) as error: write_whole(path, write)
        return str(error.value)
    def raises(number):
        def write(path): raise OSError(number, os.strerror(number))
        return write
    assert says(raises(28), tmp_path/'x').endswith(': free some space and run again.')
    assert says(raises(13), tmp_path/'x').endswith(': choose a folder in which you may write.')
    assert says(raises(28), tmp_path/'none'/'x').endswith('moved or deleted; run again where it is now.')

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
