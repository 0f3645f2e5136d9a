"Regularisers: how they are composed, and those that know no SAE, against plain loops in float64."
import math

import pytest
import torch
from torch import nn

from loops import change, loops, regs, setup, singular_values, unit
from sae_ft.activations import Taps
from sae_ft.conceptors import Conceptor
from sae_ft.losses import (L1, L2, L2SP, LDIFS, MSE, PCA, ContextKL, Lipsum, Move, Nuclear, Outside,
                           QuadraticNuclear, Zero)
from sae_ft.losses_sae import KL, AddRemove, Preservation, Residual, Sparse, Wasserstein
from sae_ft.sae import TopKSAE

def test_nothing_moved_costs_nothing():
    sae, z, _ = setup()
    assert all(reg(z, z).item() == 0 for reg in regs(sae).values())

def test_gradients_reach_z_alone():
    sae, z, z0 = setup()
    z.requires_grad_()
    z0.requires_grad_()
    sum(regs(sae).values(), Zero())(z, z0).backward()
    assert (z.grad != 0).any() and z0.grad is None and all(p.grad is None for p in sae.parameters())

def test_unit_embeddings_make_the_gradient_tangent():
    sae, z, z0 = setup()
    sum(regs(sae).values(), Zero())(z.requires_grad_(), z0).backward()
    assert (z.grad*z).sum(1).abs().max() < 1e-12  # |z| costs nothing

def test_parts_are_weighted_and_add_up():
    sae, z, z0 = setup()
    want, reg = loops(sae, z, z0), 2*(3*Residual(sae) + .5*Preservation(sae)) + Residual(sae)
    parts = reg.parts(z, z0)
    found = {k: v.item() for k, v in parts.items()}
    assert found == pytest.approx(dict(residual=7*want['residual'], preservation=want['preservation']))
    assert reg(z, z0).item() == pytest.approx(sum(parts.values()).item())
    assert repr(reg).startswith('2*') and reg.needs == {'z0', 'codes'}

def test_zero_is_neutral():
    sae, z, z0 = setup()
    assert Zero()(z, None).item() == 0 and Zero().parts(z, None) == {} and not Zero().runs_frozen
    assert (Zero() + Sparse(sae))(z, z0).item() == Sparse(sae)(z, z0).item()

def test_mixed_precision_changes_nothing():
    torch.manual_seed(0)
    sae, z, z0 = TopKSAE(32), torch.randn(40, 32), torch.randn(40, 32)
    for reg in regs(sae).values():
        with torch.autocast('cpu', torch.bfloat16): mixed = reg(z, z0)
        assert mixed.dtype == torch.float32 and mixed.item() == reg(z, z0).item()
        assert reg(z.bfloat16(), z0.bfloat16()).dtype == torch.float32

def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match='the weight of L2 is -1: it must be 0 or more'): -1*L2()

# --- what is shared

class Counting(TopKSAE):
    "Counts how often it encodes."
    count = 0
    def pre(self, u):
        self.count += 1
        return super().pre(u)

def test_codes_are_computed_once_for_all_terms():
    torch.manual_seed(0)
    sae, z, z0 = Counting(8, 2, 3), torch.randn(5, 8), torch.randn(5, 8)
    reg = 3*Residual(sae) + 3*Preservation(sae) + .5*Sparse(sae) + AddRemove(sae)
    reg(z.requires_grad_(), z0).backward()
    assert sae.count == 2
    with torch.no_grad(): reg(z, z0)
    assert sae.count == 4

def test_shared_codes_give_the_gradients_of_separate_ones():
    torch.manual_seed(0)
    sae, (z, z0) = TopKSAE(64, 4, 8).double(), torch.randn(2, 40, 64, dtype=torch.float64)
    terms = [3*Residual(sae), 3*Preservation(sae), .7*AddRemove(sae)]
    def gradient(price):
        leaf = z.clone().requires_grad_()
        price(leaf).backward()
        return leaf.grad
    together = gradient(lambda o: (terms[0] + terms[1] + terms[2])(o, z0))
    def encoded_by_each(o): return sum(list(t.parts(o, z0).values())[0] for t in terms)
    assert torch.allclose(together, gradient(encoded_by_each), rtol=1e-12) and together.abs().sum() > 0

def test_two_saes_in_one_price_have_codes_of_their_own():
    torch.manual_seed(0)
    a, b, z, z0 = TopKSAE(8, 2, 3), TopKSAE(8, 4, 2), torch.randn(5, 8), torch.randn(5, 8)
    move = Move(z, z0)
    assert move.codes(a)[0].shape == (5, 16) and move.codes(b)[0].shape == (5, 32)
    apart = Sparse(a)(z, z0).item() + Sparse(b)(z, z0).item()
    assert (Sparse(a) + Sparse(b))(z, z0).item() == pytest.approx(apart)

def test_what_a_price_needs_is_what_its_terms_need():
    sae, _, _ = setup()
    weights, ldifs = L2SP([torch.zeros(2)], [torch.zeros(2)]), LDIFS(None, None)
    assert (L2() + weights).needs == {'z0', 'weights'} and (2*Residual(sae)).needs == {'z0', 'codes'}
    assert not (Zero() + weights).runs_frozen and L2().runs_frozen and (weights + ldifs).runs_frozen

# --- each against plain loops in float64

@pytest.mark.parametrize('normalize', [True, False])
def test_prices_on_the_embedding(normalize):
    _, z, z0 = setup()
    du = change(z, z0, normalize)
    assert L1(normalize)(z, z0).item() == pytest.approx(sum(abs(v) for r in du for v in r)/len(du), abs=1e-6)
    total = sum(singular_values(du))
    assert Nuclear(normalize)(z, z0).item() == pytest.approx(total/len(du), abs=1e-6)
    assert QuadraticNuclear(.5*total, normalize)(z, z0).item() == pytest.approx((.5*total)**2, abs=1e-6)
    assert QuadraticNuclear(total + 1, normalize)(z, z0).item() == 0
    V = torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64))[0]
    price = 0.
    for r in du:
        a = [sum(V[j, i].item()*r[j] for j in range(5)) for i in range(2)]
        outside = [r[j] - sum(V[j, i].item()*a[i] for i in range(2)) for j in range(5)]
        price += sum(map(abs, a)) + .7*sum(v**2 for v in outside)
    assert PCA(V, .7, normalize)(z, z0).item() == pytest.approx(price/len(du), abs=1e-6)

@pytest.mark.parametrize('normalize', [True, False])
def test_change_outside_of_a_conceptor(normalize):
    _, z, z0 = setup()
    u0 = torch.tensor([unit(r, normalize) for r in z0.tolist()], dtype=torch.float64)
    du, a = change(z, z0, normalize), 2.
    R = u0.T @ u0/len(u0)
    C = (R @ torch.linalg.inv(R + a**-2*torch.eye(5).double())).tolist()
    left = [[r[j] - sum(C[j][i]*r[i] for i in range(5)) for j in range(5)] for r in du]
    want = sum(v*v for r in left for v in r)/len(du)
    assert Outside.fit(z0, a, normalize)(z, z0).item() == pytest.approx(want, abs=1e-9)
    assert Outside.fit(z0, 0., normalize)(z, z0).item() == pytest.approx(L2(normalize)(z, z0).item())

def test_official_values_of_prices_on_the_embedding():
    _, z, z0 = setup()
    dz = change(z, z0, False)
    assert MSE()(z, z0).item() == pytest.approx(sum(v*v for r in dz for v in r)/(7*5), abs=1e-6)
    assert Nuclear.official()(z, z0).item() == pytest.approx(sum(singular_values(dz)), abs=1e-6)

def test_a_negative_budget_charges_for_standing_still():
    _, z, _ = setup()
    assert QuadraticNuclear(-2.)(z, z).item() == 4 and QuadraticNuclear(0.)(z, z).item() == 0

def test_pca_finds_the_principal_directions():
    torch.manual_seed(0)
    x = torch.randn(500, 6, dtype=torch.float64)*torch.tensor([1., 9, 1, 1, 5, 1], dtype=torch.float64) + 3
    V = PCA.fit(x, 2, normalize=False).basis
    assert V.shape == (6, 2) and V.abs().argmax(0).tolist() == [1, 4]
    assert torch.allclose(V.T @ V, torch.eye(2, dtype=torch.float64), atol=1e-9)

def test_prices_on_words():
    _, z, z0 = setup()
    W = torch.randn(3, 5, dtype=torch.float64)
    def cosine(r, w): return sum(a*b for a, b in zip(unit(r, True), w))
    def logits(x): return [[4.*cosine(r, w) for w in W.tolist()] for r in x.tolist()]
    v, v0 = logits(z), logits(z0)
    def softmax(r): return [math.exp(x)/sum(math.exp(y) for y in r) for x in r]
    kl = sum(p*math.log(p/q) for a, b in zip(v, v0) for q, p in zip(softmax(a), softmax(b)))
    assert ContextKL(W, 4.)(z, z0).item() == pytest.approx(kl/7, abs=1e-6)
    lipsum = sum((x - y)**2/2 for a, b in zip(v, v0) for x, y in zip(a, b))/(7*3)
    assert Lipsum(W, 4.)(z, z0).item() == pytest.approx(lipsum, abs=1e-6)

def test_prices_on_weights_and_activations():
    torch.manual_seed(0)
    tower, tower0 = (nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(2)).double() for _ in range(2))
    pairs = list(zip(tower.parameters(), tower0.parameters()))
    gap = sum((a - b)**2 for p, q in pairs for a, b in zip(p.flatten().tolist(), q.flatten().tolist()))
    reg = L2SP(list(tower.parameters()), list(tower0.parameters()))
    assert reg(torch.zeros(1, 2), None).item() == pytest.approx(gap, abs=1e-6) and not reg.runs_frozen
    x = torch.randn(2, 2, 2, 2, dtype=torch.float64)
    h, h0 = tower[0](x).tolist(), tower0[0](x).tolist()
    ldifs = LDIFS(Taps(tower, ['0', '']), Taps(tower0, ['0', '']))
    with ldifs.attached(): tower(x), tower0(x)
    total = 0.
    for b in range(2):
        for i in range(2):
            for j in range(2):
                u, u0 = (unit([o[b][c][i][j] for c in range(3)], True) for o in (h, h0))
                total += sum((p - q)**2 for p, q in zip(u, u0))
    maps = total/24
    found = ldifs(torch.zeros(2, 2), torch.zeros(2, 2)).item()
    assert found == pytest.approx((maps + tokens(h, h0))/2, abs=1e-6)
    assert not tower._forward_hooks and not tower[0]._forward_hooks

def tokens(h, h0):
    "The last tap, (2, 3, 4): channels in the last dimension."
    total = 0.
    for b in range(2):
        for c in range(3):
            u, u0 = (unit([o[b][c][i][j] for i in range(2) for j in range(2)], True) for o in (h, h0))
            total += sum((p - q)**2 for p, q in zip(u, u0))
    return total/24

def test_ldifs_asks_for_both_towers():
    tower, tower0 = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    ldifs, z = LDIFS(Taps(tower, ['']), Taps(tower0, [''])), torch.zeros(3, 2)
    with ldifs.attached(): tower(z)
    with pytest.raises(ValueError, match='run the tuned and the frozen tower'): ldifs(z, z)

E = torch.eye(5, dtype=torch.float64)
SMOOTH = dict(
    mse=lambda sae: MSE(), nuclear=lambda sae: Nuclear(), quadratic=lambda sae: QuadraticNuclear(.1),
    kl=lambda sae: KL(sae, 1e-2), add_remove=AddRemove, l1=lambda sae: L1(),
    wasserstein=lambda sae: Wasserstein(sae, .2, 20), pca=lambda sae: PCA(E[:, :2]),
    conceptor=lambda sae: Outside(Conceptor(E/3)),
    context=lambda sae: ContextKL(E, 2.), lipsum=lambda sae: Lipsum(E, 2.))

@pytest.mark.parametrize('name', SMOOTH)
def test_gradcheck_of_the_others(name):
    sae, z, z0 = setup(B=3)
    assert torch.autograd.gradcheck(lambda o: SMOOTH[name](sae)(o, z0), z.requires_grad_())

@pytest.mark.parametrize('name', SMOOTH)
def test_the_others_cost_nothing_when_nothing_moved_and_compose(name):
    sae, z, z0 = setup()
    reg = SMOOTH[name](sae)
    if name != 'wasserstein': assert reg(z, z).item() == pytest.approx(0, abs=1e-12)
    assert (2*reg + L2())(z, z0).item() == pytest.approx(2*reg(z, z0).item() + L2()(z, z0).item())
    z.requires_grad_(), z0.requires_grad_()
    reg(z, z0).backward()
    assert z.grad.isfinite().all() and z0.grad is None and all(p.grad is None for p in sae.parameters())

def test_bad_bases():
    with pytest.raises(ValueError, match='not orthonormal'): PCA(torch.ones(4, 2))
    with pytest.raises(ValueError, match=r'1 to 4 principal directions, not 5'): PCA.fit(torch.randn(9, 4), 5)
    with pytest.raises(ValueError, match='equal shapes'): L2SP([torch.zeros(2)], [torch.zeros(3)])
