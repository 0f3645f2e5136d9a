"Exercises on fine-tuning and on what it did: the right answers are the package's own, and names are found."
import pytest
import torch

from sae_ft.drift_measures import cka, entropy, preserved
from sae_ft.evaluation import means
from sae_ft.exercises import EXERCISES, exercise
from sae_ft.methods import wise
from sae_ft.trainer import lr_at

def right(name): return exercise(name).right
def close(a, b): return torch.testing.assert_close(torch.as_tensor(a).float(), torch.as_tensor(b).float())

@pytest.fixture
def z(): return torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(5))

def test_names_are_found_and_others_listed():
    assert all(exercise(name).name == name for name in EXERCISES)
    with pytest.raises(ValueError, match="unknown exercise 'sae': known are clip-length, "): exercise('sae')

def test_the_loop(z):
    assert lr_at(4, 100, 1., 10) == right('trainer-warmup')
    close(right('trainer-wise')(*z, .3), wise(dict(w=z[0]), dict(w=z[1]), .3)['w'])

def test_means_of_a_kind():
    found = (.2, 10), (.4, 10), (.9, 100)
    splits = {str(i): dict(kind='far', value=v, n=n) for i, (v, n) in enumerate(found)}
    close(right('finetune-mean')([.2, .4, .9], [10, 10, 100]), means(splits)['far'])

def test_drift(z):
    close(right('drift-centred')(*z), cka(*z))
    s0, s = z.relu()
    close(right('drift-preserved')(s0, s), preserved(s0, s))
    close(right('drift-entropy')(s.mean(0)/s.mean(0).sum()), entropy(s))
    Q = torch.linalg.qr(z[0, :8])[0]
    close([cka(z[0], z[0] @ Q), cka(z[0], z[0] + torch.arange(8.))], right('drift-rotation'))

def test_choice_of_a_strength():
    assert right('shifts-strength')({.3: .5, 1.: .55, 3.: .548, 9.: .3}, .01) == 3
