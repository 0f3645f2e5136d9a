"The regularisers against plain loops in float64, and what they are made of."
import math

import pytest
import torch

from sae_ft.losses import METHODS, L2, Preservation, Residual, Sparse, Zero, from_official, get_method, to_official
from sae_ft.sae import TopKSAE

def setup(normalize=True, B=7, d=5, expansion=3, k=4, seed=0):
    "A double-precision SAE with unrelated weights, z and z0."
    torch.manual_seed(seed)
    sae = TopKSAE(d, expansion, k, normalize).double()
    for p in sae.parameters(): p.data = torch.randn_like(p)
    z0 = 2*torch.randn(B, d, dtype=torch.float64)
    return sae, z0 + 2*torch.randn_like(z0), z0

def unit(z, normalize): return [v/math.sqrt(sum(w*w for w in z)) for v in z] if normalize else z

def loops(sae, z, z0):
    "Residual, sparse, preservation and L2, summed by picture and averaged over the batch, with loops."
    s, s0, D = sae.encode(z).tolist(), sae.encode(z0).tolist(), sae.decoder.weight.tolist()
    total = dict(residual=0., sparse=0., preservation=0., l2=0.)
    for zi, z0i, si, s0i in zip(z.tolist(), z0.tolist(), s, s0):
        u, u0 = unit(zi, sae.normalize), unit(z0i, sae.normalize)
        for j in range(len(u)):
            total['residual'] += (u[j] - u0[j] - sum(D[j][i]*(si[i] - s0i[i]) for i in range(len(si))))**2
            total['l2'] += (u[j] - u0[j])**2
        for a, b in zip(si, s0i):
            total['sparse'] += abs(a - b)
            if b == 0: total['preservation'] += abs(a)
    return {k: v/len(z) for k, v in total.items()}

def regs(sae): return dict(residual=Residual(sae), sparse=Sparse(sae), preservation=Preservation(sae), l2=L2(sae.normalize))

@pytest.mark.parametrize('normalize', [True, False])
def test_each_is_its_formula(normalize):
    sae, z, z0 = setup(normalize)
    want = loops(sae, z, z0)
    assert min(want.values()) > 0
    for name, reg in regs(sae).items():
        assert reg(z, z0).item() == pytest.approx(want[name], abs=1e-6) and list(reg.parts(z, z0)) == [name]

@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('name', ['residual', 'sparse', 'preservation', 'l2'])
def test_gradcheck(name, normalize):
    sae, z, z0 = setup(normalize)
    assert torch.autograd.gradcheck(lambda o: regs(sae)[name](o, z0), z.requires_grad_())

def test_residual_is_the_change_of_the_reconstruction_error():
    sae, z, z0 = setup()
    e, e0 = (sae.normalise(o) - sae(o) for o in (z, z0))
    assert Residual(sae)(z, z0).item() == pytest.approx((e - e0).pow(2).sum(1).mean().item(), abs=1e-6)

def test_nothing_moved_costs_nothing():
    sae, z, _ = setup()
    assert all(reg(z, z).item() == 0 for reg in regs(sae).values())

def test_gradients_reach_z_alone():
    sae, z, z0 = setup()
    z.requires_grad_(); z0.requires_grad_()
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
    assert {k: v.item() for k, v in parts.items()} == pytest.approx(dict(residual=7*want['residual'], preservation=want['preservation']))
    assert reg(z, z0).item() == pytest.approx(sum(parts.values()).item())
    assert repr(reg).startswith('2*') and reg.needs_z0

def test_zero_is_neutral():
    sae, z, z0 = setup()
    assert Zero()(z, None).item() == 0 and Zero().parts(z, None) == {} and not Zero().needs_z0
    assert (Zero() + Sparse(sae))(z, z0).item() == Sparse(sae)(z, z0).item()

def test_mixed_precision_changes_nothing():
    torch.manual_seed(0)
    sae, z, z0 = TopKSAE(32), torch.randn(40, 32), torch.randn(40, 32)
    for reg in regs(sae).values():
        with torch.autocast('cpu', torch.bfloat16): mixed = reg(z, z0)
        assert mixed.dtype == torch.float32 and mixed.item() == reg(z, z0).item()
        assert reg(z.bfloat16(), z0.bfloat16()).dtype == torch.float32

def official(sae, z, z0, reg_lambda, lambda_mask, mu):
    "The official form, with loops."
    (B, d), s, s0 = z.shape, sae.encode(z).tolist(), sae.encode(z0).tolist()
    n, D, total = len(s[0]), sae.decoder.weight.tolist(), 0.
    for b in range(B):
        total += lambda_mask/(B*n)*sum(abs(v) for v, w in zip(s[b], s0[b]) if w == 0)
        for j in range(d):
            total += mu/(B*d)*(z[b, j].item() - z0[b, j].item() - sum(D[j][i]*(s[b][i] - s0[b][i]) for i in range(n)))**2
    return reg_lambda*total

def test_official_flags():
    ours = from_official(70, 10, 1, d=512, n=2048)
    assert ours == pytest.approx(dict(mu=0.13671875, lam_feature=0.341796875))
    assert to_official(**ours, d=512, n=2048) == pytest.approx(dict(reg_lambda=70, lambda_mask=10, mu=1))
    assert to_official(**ours, d=512, n=2048, lam=2, reg_lambda=140) == pytest.approx(dict(reg_lambda=140, lambda_mask=10, mu=1))

@pytest.mark.parametrize('flags', [(70, 10, 1), (3, 2, .5), (1, 0, 1)])
def test_both_forms_agree(flags):
    sae, z, z0 = setup(normalize=False)
    w = from_official(*flags, d=5, n=15)
    assert (w['mu']*Residual(sae) + w['lam_feature']*Preservation(sae))(z, z0).item() == pytest.approx(official(sae, z, z0, *flags), abs=1e-6)

def test_methods():
    sae, z, z0 = setup()
    assert list(METHODS) == ['zero-shot', 'lp', 'ft', 'wise-ft', 'l2', 'sae-ft', 'sae-ft-sparse']
    assert [m.name for m in METHODS.values()] == list(METHODS) and all(m.trainable in ('all', 'head', 'none') for m in METHODS.values())
    assert {k: list(m.regulariser(sae).parts(z, z0)) for k, m in METHODS.items() if m.regulariser} == {
        'l2': ['l2'], 'sae-ft': ['residual', 'preservation'], 'sae-ft-sparse': ['residual', 'sparse']}
    assert get_method('wise-ft').wise == .5

def test_bad_input():
    with pytest.raises(ValueError, match="unknown method 'sae': known are zero-shot, lp, ft"): get_method('sae')
    with pytest.raises(ValueError, match='the weight of L2 is -1: it must be 0 or more'): -1*L2()
