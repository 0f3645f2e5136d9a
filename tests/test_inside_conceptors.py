"Logic on pictures with a known answer, and steering by conceptors and means."
import pytest
import torch
from open_clip.transformer import VisionTransformer

from sae_ft.activations import Hooks, Taps
from sae_ft.conceptors import Conceptor
from sae_ft.inside_conceptors import (answers_to, by_conceptors, by_means, mean_vector, queries, through,
                                      towards)

def test_properties_that_are_axes_are_found_by_every_query():
    "Axis 0 is in every picture, axis 1 is property A, axis 2 property B, the rest is noise."
    g = torch.Generator().manual_seed(0)
    A, B = torch.rand(400, generator=g) < .5, torch.rand(400, generator=g) < .5
    u = torch.cat([torch.ones(400, 1), A[:, None].float(), B[:, None].float(),
                   .05*torch.randn(400, 5, generator=g)], 1)
    u = torch.nn.functional.normalize(u, dim=-1)
    wanted = {'A': A, 'B': B, 'A and B': A & B, 'A, not B': A & ~B, 'A or B': A | B}
    examples = u[A], u[B]
    means = answers_to(by_means(u, *examples, u.mean(0)), wanted)
    assert min(means.values()) > .95
    found = answers_to(by_conceptors(u, *examples, 3.), wanted)
    assert found['A'] > .95 and found['B'] > .95
    chance = {k: v.float().mean().item() for k, v in wanted.items()}
    assert all(found[k] > chance[k] + .2 for k in wanted), found

def test_queries_are_those_of_boolean_algebra_on_sets_of_axes():
    def on(*axes): return Conceptor(torch.diag(torch.tensor([float(i in axes) for i in range(4)])))
    got = {k: (C.values > .5).sum().item() for k, C in queries(on(0, 1), on(1, 2, 3)).items()}
    assert got == {'A': 2, 'B': 3, 'A and B': 1, 'A, not B': 1, 'A or B': 4}

def test_steering_changes_the_tokens_of_a_point_and_nothing_is_left():
    torch.manual_seed(0)
    tower = VisionTransformer(16, 8, width=8, layers=2, heads=2, mlp_ratio=2, output_dim=6).eval()
    x, point, m = torch.randn(2, 3, 16, 16), 'resid_post.0', torch.randn(8)
    C = Conceptor.fit(torch.randn(50, 8), 1.)
    with torch.no_grad():
        with Taps(tower, [point]) as taps: before = tower(x)
        h = taps.last[point]
        for change, want in ((through(C, 1.5), 1.5*h @ C.C.float()), (towards(m, -2.), h - 2*m)):
            with Hooks(tower, {point: change}), Taps(tower, ['resid_pre.1']) as later: tower(x)
            assert torch.allclose(later.last['resid_pre.1'], want, atol=1e-5)
        assert torch.equal(tower(x), before)

def test_what_cannot_be_asked_is_said():
    with pytest.raises(ValueError, match='no token was given'): mean_vector([])
    with pytest.raises(ValueError, match="no picture fits the query 'q'"):
        answers_to({'q': torch.ones(2)}, {'q': torch.zeros(2, dtype=torch.bool)})
