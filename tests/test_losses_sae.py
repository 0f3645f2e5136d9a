"Prices in the SAE's codes, and the official ones as coded, against plain loops in float64."
import math

import pytest
import torch

from loops import change, costs, distribution, loops, plain_sinkhorn, regs, setup, singular_values
from sae_ft.losses_sae import (KL, AddRemove, Preservation, Residual, Wasserstein, from_official, official,
                               sinkhorn, to_official)

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

@pytest.mark.parametrize('normalize', [True, False])
def test_prices_on_codes(normalize):
    sae, z, z0 = setup(normalize)
    s, s0, C = sae.encode(z).tolist(), sae.encode(z0).tolist(), costs(sae)
    on = sum(abs(a) for x, y in zip(s, s0) for a, b in zip(x, y) if b == 0)
    fade = sum(max(b - a, 0.) for x, y in zip(s, s0) for a, b in zip(x, y) if b != 0)
    assert AddRemove(sae)(z, z0).item() == pytest.approx((on + fade)/7, abs=1e-6)
    # there, 0.02 is not multiplied by lambda_mask
    official_price = AddRemove.official(sae, lambda_mask=10.)(z, z0).item()
    assert official_price == pytest.approx((on + .02/10*fade)/7, abs=1e-6)
    shares = [zip(distribution(x, 1e-6), distribution(y, 1e-6)) for x, y in zip(s, s0)]
    kl = sum(p*math.log(p/q) for row in shares for q, p in row)
    assert KL(sae)(z, z0).item() == pytest.approx(kl/7, abs=1e-6)
    far = sum(plain_sinkhorn(distribution(y), distribution(x), C, .2, 50) for x, y in zip(s, s0))
    assert Wasserstein(sae, eps=.2)(z, z0).item() == pytest.approx(far/7, abs=1e-6)

def test_sinkhorn_is_stable_and_exact_for_a_small_epsilon():
    a = torch.tensor([[.5, .5, 1e-12]], dtype=torch.float64)
    b = torch.tensor([[.25, .75]], dtype=torch.float64)
    C = torch.tensor([[[0., 1.], [1., 0.], [1., 1.]]], dtype=torch.float64)
    assert sinkhorn(a, b, C, .001, 200).isfinite().all()
    # the smaller epsilon, the more steps: each moves a potential by about epsilon; a quarter has to move
    for eps, iters in (.01, 500), (.001, 1000):
        assert (sinkhorn(a, b, C, eps, iters)*C).sum().item() == pytest.approx(.25, abs=1e-3)

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

# --- the official regularisers, as coded

def official_mask(sae, z, z0, reg_lambda, lambda_mask, mu):
    "The official form, with loops."
    (B, d), s, s0 = z.shape, sae.encode(z).tolist(), sae.encode(z0).tolist()
    n, D, total = len(s[0]), sae.decoder.weight.tolist(), 0.
    for b in range(B):
        total += lambda_mask/(B*n)*sum(abs(v) for v, w in zip(s[b], s0[b]) if w == 0)
        for j in range(d):
            expressed = sum(D[j][i]*(s[b][i] - s0[b][i]) for i in range(n))
            total += mu/(B*d)*(z[b, j].item() - z0[b, j].item() - expressed)**2
    return reg_lambda*total

def test_official_flags():
    ours = from_official(70, 10, 1, d=512, n=2048)
    assert ours == pytest.approx(dict(mu=0.13671875, lam_feature=0.341796875))
    assert to_official(**ours, d=512, n=2048) == pytest.approx(dict(reg_lambda=70, lambda_mask=10, mu=1))
    twice = to_official(**ours, d=512, n=2048, lam=2, reg_lambda=140)
    assert twice == pytest.approx(dict(reg_lambda=140, lambda_mask=10, mu=1))

@pytest.mark.parametrize('flags', [(70, 10, 1), (3, 2, .5), (1, 0, 1)])
def test_both_forms_agree(flags):
    sae, z, z0 = setup(normalize=False)
    w = from_official(*flags, d=5, n=15)
    ours = w['mu']*Residual(sae) + w['lam_feature']*Preservation(sae)
    assert ours(z, z0).item() == pytest.approx(official_mask(sae, z, z0, *flags), abs=1e-6)

def as_coded(sae, V, z, z0):
    "Each type with its default flags, in loops over the batch."
    B, d, n, m = *z.shape, sae.n, V.shape[1]
    s, s0, D, C = sae.encode(z).tolist(), sae.encode(z0).tolist(), sae.decoder.weight.tolist(), costs(sae)
    dz, V = change(z, z0, False), V.tolist()
    out = dict.fromkeys('mse l1 pca residual sparse mask remove kl w'.split(), 0.)
    for r, x, y in zip(dz, s, s0):
        out['mse'] += sum(v*v for v in r)/(B*d)
        out['l1'] += sum(map(abs, r))/(B*d)
        a = [sum(V[j][i]*r[j] for j in range(d)) for i in range(m)]
        outside = [r[j] - sum(V[j][i]*a[i] for i in range(m)) for j in range(d)]
        out['pca'] += .001*sum(map(abs, a))/(B*m) + sum(v**2 for v in outside)/(B*d)
        left = [r[j] - sum(D[j][i]*(x[i] - y[i]) for i in range(n)) for j in range(d)]
        out['residual'] += sum(v**2 for v in left)/(B*d)
        out['sparse'] += .001*sum(abs(p - q) for p, q in zip(x, y))/(B*n)
        out['mask'] += 10*sum(abs(p) for p, q in zip(x, y) if q == 0)/(B*n)
        out['remove'] += .02*sum(max(q - p, 0.) for p, q in zip(x, y) if q != 0)/(B*n)
        p, p0 = ([v/(sum(o) + 1e-8) for v in o] for o in (x, y))
        out['kl'] += .1*sum(v*(math.log(v) - math.log(w + 1e-8)) for v, w in zip(p0, p) if v > 0)/B
        out['w'] += .1*plain_sinkhorn(p0, p, C, .05, 50, everywhere=True)/B
    nuclear, sae_ = sum(singular_values(dz)), out['residual'] + out['sparse']
    mask = out['residual'] + out['mask']
    return dict(mse=out['mse'], l1=out['l1'], nuclear=nuclear, quadratic_nuclear=max(nuclear - 10, 0.)**2,
                pca=out['pca'], sae=sae_, sae_mask=mask, sae_add_remove=mask + out['remove'],
                sae_kl=sae_ + out['kl'], sae_w=sae_ + out['w'])

def test_official_types_are_as_coded():
    sae, z, z0 = setup(normalize=False)
    V = torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64))[0]
    what = dict(mse=5, l1=5, pca=V)
    for name, want in as_coded(sae, V, z, z0).items():
        assert official(name, what.get(name, sae))(z, z0).item() == pytest.approx(want, abs=1e-6), name
    says = "unknown official regulariser 'sea': known are mse, l1, nuclear"
    with pytest.raises(ValueError, match=says): official('sea')

def test_official_normalize_flag():
    _, z, z0 = setup()
    du, dz = change(z, z0, True), change(z, z0, False)
    def price(name, **kw): return official(name, 5, **kw)(z, z0).item()
    assert price('mse', normalize=True) == pytest.approx(sum(v*v for r in du for v in r)/35, abs=1e-6)
    assert price('nuclear', normalize=True) == pytest.approx(sum(singular_values(du)), abs=1e-6)
    assert price('quadratic_nuclear', c=1.) == pytest.approx((sum(singular_values(dz)) - 1)**2, abs=1e-6)
