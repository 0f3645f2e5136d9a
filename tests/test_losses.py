"The regularisers against plain loops in float64, and what they are made of."
import math

import numpy as np
import pytest
import torch
from open_clip.transformer import VisionTransformer

from sae_ft.losses import L1, L2, L2SP, LDIFS, MSE, PCA, ContextKL, Lipsum, Nuclear, QuadraticNuclear, Taps, Zero, tap_names
from sae_ft.losses_sae import KL, AddRemove, Preservation, Residual, Sparse, Wasserstein, from_official, official, sinkhorn, to_official
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

def official_mask(sae, z, z0, reg_lambda, lambda_mask, mu):
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
    assert (w['mu']*Residual(sae) + w['lam_feature']*Preservation(sae))(z, z0).item() == pytest.approx(official_mask(sae, z, z0, *flags), abs=1e-6)

def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match='the weight of L2 is -1: it must be 0 or more'): -1*L2()

# --- the other regularisers, each against plain loops in float64

def change(z, z0, normalize):
    "Rows of du, with loops."
    return [[a - b for a, b in zip(unit(x, normalize), unit(y, normalize))] for x, y in zip(z.tolist(), z0.tolist())]

def singular_values(rows):
    "From the eigenvalues of the Gram matrix."
    gram = [[sum(a*b for a, b in zip(x, y)) for y in rows] for x in rows]
    return [math.sqrt(max(v, 0.)) for v in np.linalg.eigvalsh(np.array(gram)) if v > 1e-12]

def distribution(s, eps=0.): return [(abs(v) + eps)/sum(abs(w) + eps for w in s) for v in s]

def costs(sae):
    "1 - D_i D_j of unit columns, or 0, for all pairs of features."
    D = [unit(r, True) for r in sae.decoder.weight.T.tolist()]
    return [[max(1 - sum(a*b for a, b in zip(p, q)), 0.) for q in D] for p in D]

def plain_sinkhorn(a, b, C, eps, iters, everywhere=False):
    "Transport cost with ordinary scaling vectors over the whole dictionary."
    K = [[math.exp(-c/eps) for c in row] for row in C]
    u, v = [1.]*len(a), [float(everywhere or y > 0) for y in b]
    for _ in range(iters):
        u = [x/sum(k*w for k, w in zip(row, v)) for x, row in zip(a, K)]
        v = [y/sum(K[i][j]*u[i] for i in range(len(a))) for j, y in enumerate(b)]
    return sum(u[i]*K[i][j]*v[j]*C[i][j] for i in range(len(a)) for j in range(len(b)))

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
        price += sum(map(abs, a)) + .7*sum((r[j] - sum(V[j, i].item()*a[i] for i in range(2)))**2 for j in range(5))
    assert PCA(V, .7, normalize)(z, z0).item() == pytest.approx(price/len(du), abs=1e-6)

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
    assert V.shape == (6, 2) and torch.allclose(V.T @ V, torch.eye(2, dtype=torch.float64), atol=1e-9) and V.abs().argmax(0).tolist() == [1, 4]

@pytest.mark.parametrize('normalize', [True, False])
def test_prices_on_codes(normalize):
    sae, z, z0 = setup(normalize)
    s, s0, C = sae.encode(z).tolist(), sae.encode(z0).tolist(), costs(sae)
    on = sum(abs(a) for x, y in zip(s, s0) for a, b in zip(x, y) if b == 0)
    fade = sum(max(b - a, 0.) for x, y in zip(s, s0) for a, b in zip(x, y) if b != 0)
    assert AddRemove(sae)(z, z0).item() == pytest.approx((on + fade)/7, abs=1e-6)
    assert AddRemove.official(sae, lambda_mask=10.)(z, z0).item() == pytest.approx((on + .02/10*fade)/7, abs=1e-6)  # there, 0.02 is not multiplied by lambda_mask
    kl = sum(p*math.log(p/q) for x, y in zip(s, s0) for q, p in zip(distribution(x, 1e-6), distribution(y, 1e-6)))
    assert KL(sae)(z, z0).item() == pytest.approx(kl/7, abs=1e-6)
    far = sum(plain_sinkhorn(distribution(y), distribution(x), C, .2, 50) for x, y in zip(s, s0))
    assert Wasserstein(sae, eps=.2)(z, z0).item() == pytest.approx(far/7, abs=1e-6)

def test_sinkhorn_is_stable_and_exact_for_a_small_epsilon():
    a, b = torch.tensor([[.5, .5, 1e-12]], dtype=torch.float64), torch.tensor([[.25, .75]], dtype=torch.float64)
    C = torch.tensor([[[0., 1.], [1., 0.], [1., 1.]]], dtype=torch.float64)
    assert sinkhorn(a, b, C, .001, 200).isfinite().all()
    for eps, iters in (.01, 500), (.001, 1000):  # the smaller epsilon, the more steps: each moves a potential by about epsilon
        assert (sinkhorn(a, b, C, eps, iters)*C).sum().item() == pytest.approx(.25, abs=1e-3)  # a quarter has to move

def test_a_small_epsilon_is_stable_in_float32_with_gradients():
    sae, z, z0 = setup()
    z = z.float().requires_grad_()
    price = Wasserstein(sae.float(), eps=.001)(z, z0.float())
    price.backward()
    assert price.isfinite() and z.grad.isfinite().all()

def test_transport_of_an_unmoved_picture_vanishes_with_epsilon():
    sae, z, _ = setup()
    a, b, c = (Wasserstein(sae, eps)(z, z).item() for eps in (1., .2, .02))
    assert a > b > c >= 0 and c == pytest.approx(0, abs=1e-4)  # a large epsilon blurs the plan

def test_a_picture_without_features_costs_nothing_to_transport():
    sae, z, z0 = setup()
    sae.encoder.weight.data.zero_()
    assert Wasserstein(sae)(z, z0).item() == 0

def test_prices_on_words():
    _, z, z0 = setup()
    W = torch.randn(3, 5, dtype=torch.float64)
    def logits(x): return [[4.*sum(a*b for a, b in zip(unit(r, True), w)) for w in W.tolist()] for r in x.tolist()]
    v, v0 = logits(z), logits(z0)
    def softmax(r): return [math.exp(x)/sum(math.exp(y) for y in r) for x in r]
    kl = sum(p*math.log(p/q) for a, b in zip(v, v0) for q, p in zip(softmax(a), softmax(b)))
    assert ContextKL(W, 4.)(z, z0).item() == pytest.approx(kl/7, abs=1e-6)
    assert Lipsum(W, 4.)(z, z0).item() == pytest.approx(sum((x - y)**2/2 for a, b in zip(v, v0) for x, y in zip(a, b))/(7*3), abs=1e-6)

def test_prices_on_weights_and_activations():
    torch.manual_seed(0)
    tower, tower0 = (torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.Flatten(2)).double() for _ in range(2))
    gap = sum((a - b)**2 for p, q in zip(tower.parameters(), tower0.parameters()) for a, b in zip(p.flatten().tolist(), q.flatten().tolist()))
    reg = L2SP(list(tower.parameters()), list(tower0.parameters()))
    assert reg(torch.zeros(1, 2), None).item() == pytest.approx(gap, abs=1e-6) and not reg.needs_z0
    taps, taps0, x = Taps(tower, ['0', '']), Taps(tower0, ['0', '']), torch.randn(2, 2, 2, 2, dtype=torch.float64)
    h, h0 = tower[0](x).tolist(), tower0[0](x).tolist()
    tower(x), tower0(x)
    total = 0.
    for b in range(2):
        for i in range(2):
            for j in range(2):
                u, u0 = unit([h[b][c][i][j] for c in range(3)], True), unit([h0[b][c][i][j] for c in range(3)], True)
                total += sum((p - q)**2 for p, q in zip(u, u0))
    maps = total/24
    assert LDIFS(taps, taps0)(torch.zeros(2, 2), torch.zeros(2, 2)).item() == pytest.approx((maps + tokens(h, h0))/2, abs=1e-6)
    taps.close()
    assert not tower._forward_hooks and not tower[0]._forward_hooks

def tokens(h, h0):
    "The last tap, (2, 3, 4): channels in the last dimension."
    total = 0.
    for b in range(2):
        for c in range(3):
            u, u0 = (unit([o[b][c][i][j] for i in range(2) for j in range(2)], True) for o in (h, h0))
            total += sum((p - q)**2 for p, q in zip(u, u0))
    return total/24

def test_taps_of_a_transformer_hold_tokens_and_the_embedding():
    torch.manual_seed(0)
    tower, tower0 = (VisionTransformer(16, 8, width=8, layers=4, heads=2, mlp_ratio=2, output_dim=6) for _ in range(2))
    taps0, taps, x = Taps(tower0), Taps(tower), torch.randn(3, 3, 16, 16)
    z, z0 = tower(x), tower0(x).detach()
    assert {k: tuple(h.shape) for k, h in taps.last.items()} == {'ln_pre': (3, 5, 8), **{f'transformer.resblocks.{i}': (3, 5, 8) for i in range(4)}, '': (3, 6)}
    LDIFS(taps, taps0)(z, z0).backward()
    assert all(p.grad is None for p in tower0.parameters()) and tower.conv1.weight.grad.abs().sum() > 0
    inner = [{k: h for k, h in o.last.items() if k} for o in (taps, taps0)]
    pair = Taps(tower, tap_names(tower)), Taps(tower0, tap_names(tower0))
    tower(x), tower0(x)
    want = sum(sum((p - q)**2 for p, q in zip(unit(r, True), unit(r0, True))) for k in inner[0]
               for r, r0 in zip(*(o[k].flatten(0, 1).tolist() for o in inner)))/(5*3*5*8)
    assert official('ldifs', pair)(z, z0).item() == pytest.approx(want, abs=1e-6)  # without the embedding

def test_ldifs_asks_for_both_towers():
    tower, tower0 = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    taps, taps0 = Taps(tower, ['']), Taps(tower0, [''])
    tower(torch.zeros(3, 2))
    with pytest.raises(ValueError, match='run the tuned and the frozen tower'): LDIFS(taps, taps0)(torch.zeros(3, 2), torch.zeros(3, 2))

def test_taps_know_resnets_and_transformers():
    class Tower(torch.nn.Module): pass
    vit = Tower(); vit.transformer = Tower(); vit.transformer.resblocks, vit.ln_pre = [0]*12, 0
    assert tap_names(vit) == ['ln_pre', *(f'transformer.resblocks.{i}' for i in (2, 5, 8, 11))]
    with pytest.raises(ValueError, match='Tower has no blocks'): tap_names(Tower())

SMOOTH = dict(mse=lambda sae: MSE(), nuclear=lambda sae: Nuclear(), quadratic=lambda sae: QuadraticNuclear(.1), kl=lambda sae: KL(sae, 1e-2), add_remove=AddRemove, l1=lambda sae: L1(),
              wasserstein=lambda sae: Wasserstein(sae, .2, 20), pca=lambda sae: PCA(torch.eye(5, dtype=torch.float64)[:, :2]),
              context=lambda sae: ContextKL(torch.eye(5, dtype=torch.float64), 2.), lipsum=lambda sae: Lipsum(torch.eye(5, dtype=torch.float64), 2.))

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

# --- the official regularisers, as coded

def as_coded(sae, V, z, z0):
    "Each type with its default flags, in loops over the batch."
    B, d, n, m = *z.shape, sae.n, V.shape[1]
    s, s0, D, C = sae.encode(z).tolist(), sae.encode(z0).tolist(), sae.decoder.weight.tolist(), costs(sae)
    dz, V, out = change(z, z0, False), V.tolist(), dict.fromkeys('mse l1 pca residual sparse mask remove kl w'.split(), 0.)
    for r, x, y in zip(dz, s, s0):
        out['mse'] += sum(v*v for v in r)/(B*d)
        out['l1'] += sum(map(abs, r))/(B*d)
        a = [sum(V[j][i]*r[j] for j in range(d)) for i in range(m)]
        out['pca'] += .001*sum(map(abs, a))/(B*m) + sum((r[j] - sum(V[j][i]*a[i] for i in range(m)))**2 for j in range(d))/(B*d)
        out['residual'] += sum((r[j] - sum(D[j][i]*(x[i] - y[i]) for i in range(n)))**2 for j in range(d))/(B*d)
        out['sparse'] += .001*sum(abs(p - q) for p, q in zip(x, y))/(B*n)
        out['mask'] += 10*sum(abs(p) for p, q in zip(x, y) if q == 0)/(B*n)
        out['remove'] += .02*sum(max(q - p, 0.) for p, q in zip(x, y) if q != 0)/(B*n)
        p, p0 = ([v/(sum(o) + 1e-8) for v in o] for o in (x, y))
        out['kl'] += .1*sum(v*(math.log(v) - math.log(w + 1e-8)) for v, w in zip(p0, p) if v > 0)/B
        out['w'] += .1*plain_sinkhorn(p0, p, C, .05, 50, everywhere=True)/B
    nuclear, sae_ = sum(singular_values(dz)), out['residual'] + out['sparse']
    return dict(mse=out['mse'], l1=out['l1'], nuclear=nuclear, quadratic_nuclear=max(nuclear - 10, 0.)**2, pca=out['pca'], sae=sae_,
                sae_mask=out['residual'] + out['mask'], sae_add_remove=out['residual'] + out['mask'] + out['remove'], sae_kl=sae_ + out['kl'], sae_w=sae_ + out['w'])

def test_official_types_are_as_coded():
    sae, z, z0 = setup(normalize=False)
    V = torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64))[0]
    what = dict(mse=5, l1=5, pca=V)
    for name, want in as_coded(sae, V, z, z0).items():
        assert official(name, what.get(name, sae))(z, z0).item() == pytest.approx(want, abs=1e-6), name
    with pytest.raises(ValueError, match="unknown official regulariser 'sea': known are mse, l1, nuclear"): official('sea')

def test_official_normalize_flag():
    _, z, z0 = setup()
    assert official('mse', 5, normalize=True)(z, z0).item() == pytest.approx(sum(v*v for r in change(z, z0, True) for v in r)/35, abs=1e-6)
    assert official('nuclear', normalize=True)(z, z0).item() == pytest.approx(sum(singular_values(change(z, z0, True))), abs=1e-6)
    assert official('quadratic_nuclear', c=1.)(z, z0).item() == pytest.approx((sum(singular_values(change(z, z0, False))) - 1)**2, abs=1e-6)

def test_bad_bases():
    with pytest.raises(ValueError, match='not orthonormal'): PCA(torch.ones(4, 2))
    with pytest.raises(ValueError, match=r'1 to 4 principal directions, not 5'): PCA.fit(torch.randn(9, 4), 5)
    with pytest.raises(ValueError, match='equal shapes'): L2SP([torch.zeros(2)], [torch.zeros(3)])
