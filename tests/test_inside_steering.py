"Steerability of a toy whose answer is known, and what is the same by two ways."
import math

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import nn

from sae_ft.activations import Hooks, points
from sae_ft.clip import Classifier
from sae_ft.inside_saes import with_codes
from sae_ft.inside_steering import (Neurons, coverage, directional, mean_changes, nearness, set_feature,
                                    steerability, steerability_of_kinds, steered, strength_curve, thoughts)
from sae_ft.interventions import set_to
from sae_ft.sae_kinds import SAES

POINT = 'resid_post.0'

class Through(nn.Module):
    "A tower of one token: pictures (N, 3, 1, 1) -> (N, 3)."
    def __init__(self):
        super().__init__()
        self.inner = nn.Identity()
    def forward(self, x): return self.inner(x.flatten(1)[:, None])[:, 0]

@pytest.fixture(scope='module')
def classifier():
    torch.manual_seed(0)
    tower = VisionTransformer(16, 8, width=8, layers=2, heads=2, mlp_ratio=2, output_dim=6)
    return Classifier(tower, F.normalize(torch.randn(3, 6), dim=-1), 10.).eval().requires_grad_(False)

def test_steerability_of_a_toy_is_the_value_worked_out_by_hand():
    "u = (0, .6, .8) becomes (12, 3, 4)/13; words are the axes, the scale is 2."
    toy, x = Classifier(Through(), torch.eye(3)).eval(), torch.tensor([0., 3, 4]).view(1, 3, 1, 1)
    def softmax(v): return [math.exp(o)/sum(map(math.exp, v)) for o in v]
    p, q = softmax([0, 1.2, 1.6]), softmax([24/13, 6/13, 8/13])
    dp = mean_changes(*steered(toy, x, 'inner', Neurons(3), [0], 12.), torch.eye(3), 2.)
    assert dp[0].tolist() == pytest.approx([b - a for a, b in zip(p, q)], abs=1e-6)
    assert steerability(dp).item() == pytest.approx(sum((b - a)**2 for a, b in zip(p, q)), abs=1e-6)
    assert directional(dp).item() == pytest.approx(sum((b - a)*abs(b - a) for a, b in zip(p, q)), abs=1e-6)

@pytest.mark.parametrize('normalize', [True, False])
def test_the_quick_way_is_that_of_codes(normalize, classifier):
    torch.manual_seed(1)
    sae, x, T = SAES['topk'](8, 2, 3, normalize).eval(), torch.randn(5, 3, 16,
                                                                     16), F.normalize(torch.randn(7, 6),
                                                                                      dim=-1)
    dp = mean_changes(*steered(classifier, x, POINT, sae, [2, 11], 3., batch_size=2), T, 5.)
    with torch.no_grad():
        before = thoughts(classifier.encode(x), T, 5.)
        for i, f in enumerate((2, 11)):
            with Hooks(classifier.visual, {POINT: with_codes(sae, set_to(f, 3.))}):
                after = thoughts(classifier.encode(x), T, 5.)
            assert torch.allclose(dp[i], (after - before).mean(0), atol=1e-5)

def test_a_neuron_is_set_in_every_token(classifier):
    seen = []
    name = 'mlp_act.1'
    set_it = set_feature(Neurons(16), 5)(4.)
    def look(h): seen.append((h, set_it(h)))
    with torch.no_grad(), Hooks(classifier.visual, {name: look}): classifier.encode(torch.randn(2, 3, 16, 16))
    (h, new), = seen
    assert torch.allclose(new[..., 5], torch.tensor(4.), rtol=1e-6, atol=0)  # h + (4 - h) may round
    others = [i for i in range(16) if i != 5]
    assert torch.equal(new[..., others], h[..., others])

def test_activations_replaced_by_themselves_change_no_logit(classifier):
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before = classifier(x)
        for name, point in points(classifier.visual).items():
            d = 16 if name.startswith('mlp_act') else 8
            with Hooks(classifier.visual, {name: with_codes(Neurons(d), lambda s: s)}):
                assert (classifier(x) - before).abs().max() <= 1e-5

def test_near_concepts_together():
    g = torch.Generator().manual_seed(0)
    T, dp = F.normalize(torch.randn(20, 4, generator=g), dim=-1), torch.randn(6, 20, generator=g)
    assert torch.allclose(steerability_of_kinds(dp, nearness(T, 0.)), steerability(dp), atol=1e-5)
    K = nearness(T, .3)
    assert torch.linalg.eigvalsh(K)[0] > -1e-5 and torch.allclose(K.diag(), torch.ones(20))
    want = [sum(a*b*math.exp((float(T[i] @ T[j]) - 1)/.3) for i, a in enumerate(r) for j, b in enumerate(r))
            for r in dp.tolist()]
    assert steerability_of_kinds(dp, K).tolist() == pytest.approx(want, rel=1e-3)
    twice = torch.cat([T, T])                       # every word twice: mass on both copies counts as on one
    halves = torch.cat([dp, dp], 1)/2
    assert torch.allclose(steerability_of_kinds(halves, nearness(twice, .3)), steerability_of_kinds(dp, K),
                          atol=1e-4)
    assert torch.allclose(steerability(halves), steerability(dp)/2, atol=1e-5)
    with pytest.raises(ValueError, match='width is -1'): nearness(T, -1.)

def test_coverage_counts_different_labels():
    dp = torch.tensor([[.6, -.6, 0], [.5, 0, -.5], [.1, -.1, 0], [0, .9, -.9]])
    found = coverage(dp, ['a', 'b', 'c'])
    assert found == dict(share=.75, labels={0: 'a', 1: 'a', 3: 'b'}, concepts=2)

def test_curves(classifier):
    T, x = F.normalize(torch.randn(4, 6), dim=-1), torch.randn(3, 3, 16, 16)
    found = strength_curve(classifier, x, POINT, lambda b: lambda h: h + b*h, (0., 1., 3.), T, [*'abcd'],
                           ['b', 'd'])
    assert list(found.columns) == ['strength', 'change', 'b', 'd']
    assert found.change.tolist() == pytest.approx([0, 1, 3], abs=1e-5)
    assert found.b[0] == pytest.approx(thoughts(classifier.encode(x), T)[:, 1].mean().item(), abs=1e-5)

def test_what_does_not_exist_is_one_line(classifier):
    x = torch.randn(1, 3, 16, 16)
    for how, said in (((POINT, Neurons(8), [8]), 'no feature 8'),
                      (('resid_post.2', Neurons(8), [0]), 'did you mean')):
        with pytest.raises(ValueError, match=said) as error: steered(classifier, x, *how, 1.)
        assert '\n' not in str(error.value)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in classifier.visual.modules())
