"z0 of crops in parts: going on in the middle, bounds; and a training that reads what another one left."
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sae_ft import frozen as F
from sae_ft.clip import load_clip, zero_shot
from sae_ft.frozen import KeptFrozen
from sae_ft.losses import L2
from sae_ft.plumbing.cache import Cache
from sae_ft.plumbing.files import digest
from sae_ft.plumbing.resume import Checkpoint
from sae_ft.settings import Config
from sae_ft.suites import load_suite
from sae_ft.trainer import Tuning, finetune
from tiny_runs import TINY

N, B, d = 22, 4, 6  # pictures, batch, length of an embedding
KEY = dict(pictures=N, batch_size=B, seed=0)

class Count:
    "An encoder that counts its batches."
    def __init__(self): self.n = 0
    def __call__(self, x):
        self.n += 1
        return 2*x + 1

def batches(epoch): return (torch.arange(N*d).reshape(N, d) + 1000.*epoch).split(B)

def walk(cache, epoch, step=0, most=None):
    "One life of a run that sees so many batches of an epoch from a step on: how many it computed."
    frozen = KeptFrozen(count := Count(), cache, KEY, d)
    frozen.begin(epoch, step)
    for x in islice(batches(epoch), step, most): assert torch.equal(frozen(x), 2*x + 1)
    return count.n

@pytest.fixture(params=(1, 2**24), ids=('a part a batch', 'a part an epoch'))
def cache(request, tmp_path, monkeypatch):
    monkeypatch.setattr(F, 'PART', request.param)
    return Cache(tmp_path)

def test_every_epoch_is_computed_once(cache):
    assert [walk(cache, epoch) for epoch in (0, 1, 1, 0)] == [6, 6, 0, 0]

@pytest.mark.parametrize('stop', range(1, 6))
def test_a_run_that_goes_on_leaves_whole_parts_only(stop, cache):
    assert [walk(cache, 0, most=stop), walk(cache, 0, stop)] == [stop, 6 - stop]
    assert walk(cache, 0) == (0 if F.PART == 1 else 6)
    assert walk(cache, 0, stop) == 0

def test_a_part_of_another_shape_is_not_read(cache):
    walk(cache, 0)
    for _, _, file in cache.entries(): file.unlink()
    name = dict(KEY, epoch=0, rows=[0, 4 if F.PART == 1 else N])
    cache.put('z0', name, dict(z0=torch.zeros(3, d)))
    assert walk(cache, 0) == 6

class Memory:
    "A cache without a folder, that keeps no more than it is asked to."
    def __init__(self, most): self.most, self.kept = most, {}
    def get(self, kind, key): return self.kept.get(str(key))
    def put(self, kind, key, tensors): self.kept[str(key)] = tensors, {}

def test_the_first_parts_are_kept_where_not_all_fit(monkeypatch):
    monkeypatch.setattr(F, 'PART', 1)
    memory = Memory(2*4*d*(N + 2*B))  # an epoch and two batches are half of it
    for epoch in range(3): walk(memory, epoch)
    assert len(memory.kept) == 6 + 2
    assert [walk(memory, epoch) for epoch in range(3)] == [0, 4, 6]

def test_embeddings_that_do_not_fit_into_memory_are_not_kept_for_later(monkeypatch, tmp_path):
    "They are not read either: each call computes."
    model = SimpleNamespace(head=nn.Linear(d, 3), visual=nn.Linear(d, d))
    what = model, SimpleNamespace(fingerprint=dict(line='a')), dict(line=range(9)), Config(device='cpu')
    made = []
    def embed():
        made.append(1)
        return dict(line=(torch.zeros(9, d), torch.zeros(9)))
    large, fits = 4*9*d - 1, 4*9*d  # bytes of memory
    for memory, times in (large, 1), (large, 2), (fits, 3), (fits, 3), (large, 4):
        monkeypatch.setattr(F, 'IN_MEMORY', memory)
        F.shared_embeddings(Cache(tmp_path), *what, embed)
        assert len(made) == times

# --- trainings

@pytest.fixture(scope='module')
def parts():
    suite, clip = load_suite(limit=64, progress=False), load_clip()
    return suite, zero_shot(clip, suite.classnames, suite.templates)

def tuned(parts, cfg, checkpoint=None):
    "The weights and the record of a training, and how often the frozen tower ran."
    suite, (model, frozen) = parts[0], (deepcopy(parts[1]) for _ in range(2))
    ran, encode = [], frozen.requires_grad_(False).encode
    frozen.encode = lambda x: ran.append(1) or encode(x)
    _, lines = finetune(model, suite, L2(), cfg, progress=False, frozen=frozen, checkpoint=checkpoint)
    record = [{k: v for k, v in o.items() if k != 'seconds'} for o in lines]
    return digest(model.state_dict()), record, len(ran)

def test_a_training_that_reads_is_the_one_that_computes(parts, tmp_path):
    alone = Config(**{**TINY, 'epochs': 2, 'batch_size': 20})
    shares = replace(alone, cache=str(tmp_path))
    first, second, other = tuned(parts, alone), tuned(parts, shares), tuned(parts, replace(shares, lr=1e-3))
    assert first[:2] == second[:2] == tuned(parts, shares)[:2]
    assert (first[2], second[2], other[2]) == (8, 8, 0) and tuned(parts, replace(shares, lam=2.))[2] == 0

class Cut(Exception): pass

@pytest.mark.parametrize('left', (True, False), ids=('z0 is there', 'nothing is there'))
def test_a_training_that_goes_on_reads_from_the_middle(left, parts, tmp_path, monkeypatch):
    cfg = Config(**{**TINY, 'epochs': 2, 'batch_size': 20, 'cache': str(tmp_path/'cache')})
    whole = tuned(parts, replace(cfg, cache=None))
    if left: tuned(parts, cfg)
    def dies(self, batches, was=Tuning.step):
        if self.done == 6: raise Cut  # in the second epoch, of four steps
        was(self, batches)
    kept = Checkpoint(tmp_path/'state.safetensors', every=0.)
    with monkeypatch.context() as m, pytest.raises(Cut):
        m.setattr(Tuning, 'step', dies)
        tuned(parts, cfg, kept)
    again = tuned(parts, cfg, kept)
    assert again[:2] == whole[:2] and again[2] == (0 if left else 2)
