"Tasks: groups, their suites, the loss among their classes, and a memory of classes."
import datasets
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from sae_ft.losses_drrho import DRRho
from sae_ft.methods import CrossEntropy
from sae_ft.suites import Suite
from sae_ft.tasks import Among, Statistics, of_classes, task_groups, task_suite

@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_groups_hold_every_class_once_and_are_of_like_size(n, T, seed):
    classes = list(range(5, 5 + n))
    if T > n:
        with pytest.raises(ValueError, match='tasks is'): task_groups(classes, T, seed)
        return
    groups = task_groups(classes, T, seed)
    sizes = [len(o) for o in groups]
    assert sorted(sum(groups, [])) == classes and len(groups) == T and max(sizes) - min(sizes) <= 1
    assert groups == task_groups(classes, T, seed)

def labelled(y): return datasets.Dataset.from_dict(dict(label=y, image=list(range(len(y)))))

def test_a_task_sees_its_own_pictures_and_every_split():
    print_of = dict(train='a', val='b', line='c')
    train, val = labelled([0, 1, 2, 1]), labelled([2, 1])
    suite = Suite('s', list('xyz'), ['{}'], train, val, dict(line=1), {}, print_of)
    part = task_suite(suite, [1, 2])
    assert part.train['image'][:] == [1, 2, 3] and part.splits == suite.splits
    assert part.fingerprint['line'] == 'c' and part.fingerprint['train'] not in ('a', part.fingerprint['val'])
    assert task_suite(suite, [1]).fingerprint['train'] != part.fingerprint['train']
    assert of_classes(suite.train, [0])['image'][:] == [0]
    with pytest.raises(ValueError, match='no picture in val: take fewer tasks'): task_suite(suite, [0])

def test_other_classes_have_no_part_in_the_loss_of_either_kind():
    torch.manual_seed(0)
    W, z = torch.randn(5, 3), torch.randn(4, 3)
    logits, y = (F.normalize(z, dim=-1) @ W.T).requires_grad_(), torch.tensor([1, 3, 1, 3])
    plain = Among(CrossEntropy(), [1, 3], 5)
    assert not plain.runs_frozen and plain.name == 'ce' and not plain.state_dict()
    loss = plain(z, logits, y)
    want = F.cross_entropy(logits[:, [1, 3]], torch.tensor([0, 1, 0, 1]))
    assert loss.item() == pytest.approx(want.item())
    steered = Among(DRRho(W, torch.zeros(5)), [1, 3], 5)
    assert steered.runs_frozen
    steered(z, logits, y, z).backward()
    assert (logits.grad[:, [0, 2, 4]] == 0).all() and logits.grad.isfinite().all()

def test_refresh_reaches_the_objective():
    seen = []
    inner = CrossEntropy()
    inner.refresh = seen.append
    Among(inner, [0], 2).refresh('classifier')
    assert seen == ['classifier']

def test_stale_means_stay_and_moved_ones_follow():
    a, b = F.normalize(torch.randn(6, 4), dim=-1), F.normalize(torch.randn(6, 4), dim=-1)
    stats = Statistics(3, 4)
    stats.shift(a, b, .1)   # nothing is stored yet
    assert stats.seen == [] and not stats.moved.any()
    stats.learn([1], a, torch.ones(6, dtype=torch.long), 0)
    first = stats.stale[1].clone()
    stats.shift(a, b, 1e3)  # so wide that all pictures weigh the same
    assert torch.equal(stats.stale[1], first)
    assert torch.allclose(stats.moved[1], first + (b - a).mean(0), atol=1e-5)
    other = Statistics(3, 4)
    other.load_state_dict(stats.state_dict())
    assert other.seen == [1] and torch.equal(other.moved, stats.moved)

@pytest.mark.parametrize('covariances, size', [(False, 4*16 + 8), (True, 4*16 + 4*16*16 + 8)])
def test_bytes_of_a_class(covariances, size):
    stats = Statistics(7, 16, covariances)
    assert stats.bytes_a_class == size
    assert sum(v.nbytes for v in stats.state_dict().values()) == 7*(size + 4*16)   # with the stale means
