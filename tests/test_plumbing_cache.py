"What runs share: where it lies, full disks, other files, several processes at once."
import multiprocessing, warnings
from pathlib import Path

import pytest
import torch

from sae_ft.plumbing import cache as C
from sae_ft.plumbing.cache import Cache, cache_folder
from sae_ft.plumbing.files import lock

ONE = dict(x=torch.ones(5))

def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.setenv('SAE_FT_CACHE', str(tmp_path/'a'))
    assert cache_folder('auto') == tmp_path/'a' and cache_folder(tmp_path/'b') == tmp_path/'b'
    monkeypatch.delenv('SAE_FT_CACHE')
    assert cache_folder('auto') == Path.home()/'.cache'/'sae_ft' and cache_folder(None) is None
    assert cache_folder('~/x') == Path.home()/'x'

def test_a_folder_that_cannot_be_written_warns_once_and_is_left(tmp_path):
    (tmp_path/'file').write_text('in the way')
    cache = Cache(tmp_path/'file'/'cache')
    with pytest.warns(UserWarning, match='what runs share is not kept') as said:
        for n in range(3): cache.put('kind', dict(n=n), ONE)
    assert len(said) == 1 and cache.get('kind', dict(n=0)) is None

def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    cache.put('kind', dict(n=0), ONE)
    def full(*_, **__): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(C, 'write_tensors', full)
    with pytest.warns(UserWarning, match='No space left') as said:
        for n in range(1, 4): cache.put('kind', dict(n=n), ONE)
    assert len(said) == 1 and torch.equal(cache.get('kind', dict(n=0))[0]['x'], ONE['x'])
    assert not list(tmp_path.glob('.*.part'))

def test_other_files_are_never_deleted(tmp_path):
    others = ['model.safetensors', 'kind-00.safetensors', f"kind-{'0'*64}.txt", '.model.safetensors.part']
    for o in others[:-1]: (tmp_path/o).write_bytes(bytes(3000))
    (tmp_path/others[-1]).mkdir()
    left = tmp_path/f".kind-{'0'*64}.safetensors.part"  # by a writer that was killed
    left.mkdir()
    cache = Cache(tmp_path, gb=3e-6)
    for n in range(20): cache.put('kind', dict(n=n), ONE)
    assert all((tmp_path/o).exists() for o in others) and not left.exists()
    assert sum(o for _, o, _ in cache.entries()) <= cache.most and len(cache.entries()) >= 2

def test_an_entry_that_vanishes_is_a_miss(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    cache.put('kind', dict(n=0), ONE)
    def vanishes(path, *_):
        path.unlink()
        raise ValueError(f"'{path}' is not a safetensors file, or a damaged one.")
    monkeypatch.setattr(C, 'read_tensors', vanishes)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert cache.get('kind', dict(n=0)) is None

def test_who_finds_it_locked_for_long_goes_on(tmp_path, monkeypatch):
    def busy(folder): raise ValueError('another process is at work')
    monkeypatch.setattr(C, 'lock', busy)
    cache = Cache(tmp_path)
    cache.put('kind', dict(n=0), ONE)
    assert cache.entries() == []
    monkeypatch.setattr(C, 'lock', lock)
    cache.put('kind', dict(n=0), ONE)
    assert len(cache.entries()) == 1

def crowd(folder, seed, failed):
    "Many entries, kept and read, in a folder that holds a few of them."
    warnings.simplefilter('error')
    cache = Cache(folder, gb=1e-5)
    for i in range(60):
        n = (7*i + seed) % 11
        cache.put('kind', dict(n=n), dict(x=torch.full((200,), float(n))))
        found = cache.get('kind', dict(n=n))
        if found and not (found[0]['x'] == n).all(): failed.set()

def test_several_processes_share_a_folder(tmp_path):
    new = multiprocessing.get_context('spawn')
    failed = new.Event()
    lives = [new.Process(target=crowd, args=(tmp_path, seed, failed)) for seed in range(3)]
    for o in lives: o.start()
    for o in lives: o.join()
    assert [o.exitcode for o in lives] == [0, 0, 0] and not failed.is_set()
    cache = Cache(tmp_path, gb=1e-5)
    assert 0 < sum(o for _, o, _ in cache.entries()) <= cache.most
