"Rows of sequences: what they name is there, MACIL's parts do what they say, readouts answer."
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sae_ft.methods import METHODS
from sae_ft.tasks import Statistics
from sae_ft.tasks_methods import BENCHMARK, READOUTS, TASK_METHODS, Calibrated, Task, aligned, get_task_method
from sae_ft.trainer import TRAINABLE

def test_rows_name_what_there_is():
    for name, row in TASK_METHODS.items():
        assert name == row.name and row.method in METHODS and row.anchor in ('first', 'previous')
        assert row.trainable in (None, *TRAINABLE) and row.sae in (None, 'first', 'new')
        assert row.method.startswith('sae-ft') == (row.sae is not None)
    assert all(row in TASK_METHODS and who in READOUTS for row, who in BENCHMARK.values())
    assert {'sequential', 'wise', 'ncm', 'sdc', 'macil', 'drrho', 'joint'} <= set(BENCHMARK)
    assert len(BENCHMARK) >= 12

def test_an_unknown_row_lists_the_known_ones():
    with pytest.raises(ValueError) as error: get_task_method('macill')
    assert all(k in str(error.value) for k in TASK_METHODS)

def test_calibration_costs_nothing_at_the_start_and_weighs_what_it_says():
    torch.manual_seed(0)
    z, y, logits = torch.randn(10, 6), torch.tensor([0, 2]*5), torch.randn(10, 3)
    task, ce = Task(1, [2, 0], z, y), F.cross_entropy(logits, y).item()
    one, three = Calibrated(task, 3, 1.), Calibrated(task, 3, 3.)
    assert one(z, logits, y, z).item() == pytest.approx(ce, abs=1e-6) and not one.state_dict()
    away = z*torch.tensor([4., 1., 1., 1., 1., 1.])
    more = one(away, logits, y, z).item() - ce
    assert three(away, logits, y, z).item() - ce == pytest.approx(3*more, rel=1e-4)

@pytest.fixture()
def model():
    m = nn.Module()
    m.head = nn.Linear(2, 3)
    m.classify = lambda z: m.head(F.normalize(z, dim=-1))
    with torch.no_grad():
        m.head.weight.copy_(torch.tensor([[9., 0.], [0., 9.], [-9., 0.]]))
        m.head.bias.zero_()
    return m

def test_readouts(model):
    stats, z = Statistics(3, 2), torch.tensor([[1., .2], [.2, 5.], [-3., .1]])
    assert READOUTS['head'](model, stats, z, [0, 1, 2]).tolist() == [0, 1, 2]
    assert READOUTS['head'](model, stats, z, [1, 2]).tolist() == [1, 1, 2]
    stats.learn([0, 2], torch.eye(2), torch.tensor([0, 2]), 0)
    stats.moved[2] = torch.tensor([-1., 0.])
    assert READOUTS['stale'](model, stats, z, [0, 1, 2]).tolist() == [0, 2, 2]
    assert READOUTS['moved'](model, stats, z, [0, 1, 2]).tolist() == [0, 0, 2]

def test_alignment_repeats_with_the_seed_and_leaves_unseen_classes(model):
    u = F.normalize(torch.tensor([[0., 1.], [.1, 1.], [1., 0.], [1., .1]]), dim=-1)
    y, stats = torch.tensor([0, 0, 1, 1]), Statistics(3, 2, covariances=True)
    stats.learn([0, 1], u, y, 0)
    old, heads = {k: v.clone() for k, v in model.head.state_dict().items()}, []
    for _ in range(2):
        model.head.load_state_dict(old)
        aligned(model, stats, Task(0, [0, 1], u, y), 3)
        heads.append(model.head.weight.detach().clone())
    assert torch.equal(*heads) and torch.equal(heads[0][2], old['weight'][2])
    assert READOUTS['head'](model, stats, u, [0, 1]).tolist() == [0, 0, 1, 1]
