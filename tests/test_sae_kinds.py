"The kinds of SAE other than Top-k against plain loops in float64, and what holds for all six."
import pytest
import torch

from sae_ft.sae import SAE, TopKSAE
from sae_ft.sae_kinds import (
    SAES, BatchTopKSAE, JumpReLU, JumpReLUSAE, MatryoshkaSAE, ReLUSAE, Step, exceeded, kind_named,
    pre_activation_loss)
from tiny_saes import data, loop_decode, trained, variant

# --- all kinds

def test_unknown_kinds_list_the_known():
    known = "'topk', 'topk-signed', 'relu', 'batchtopk', 'jumprelu', 'matryoshka'"
    with pytest.raises(ValueError, match=f"unknown kind of SAE 'topp': known are {known}"): kind_named('topp')

def test_a_kind_by_name_is_a_registered_class():
    for kind in SAES: assert type(kind_named(kind)(6, 2, 3)) in SAE.classes.values()

@pytest.mark.parametrize('make', [ReLUSAE, JumpReLUSAE, TopKSAE, BatchTopKSAE])
def test_the_encoder_bias_is_added_after_centring(make):
    sae, p = variant(make, bias=True)
    W, b, c = sae.encoder.weight.tolist(), sae.encoder.bias.tolist(), sae.b_pre.tolist()
    u = torch.randn(3, 5, dtype=torch.float64)
    def pre(x): return [sum(w*(v - m) for w, v, m in zip(row, x, c)) + bias for row, bias in zip(W, b)]
    want = torch.tensor([pre(x) for x in u.tolist()], dtype=torch.float64)
    assert torch.allclose(sae.pre(u), want, atol=1e-6, rtol=0)

@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('kind', SAES)
def test_every_kind_survives_save_and_load(tmp_path, kind, normalize):
    sae, z = trained(kind, normalize), data(40, seed=2)
    sae.save(tmp_path/'s')
    back = SAE.load(tmp_path/'s')
    assert type(back) is type(sae) and back.config == sae.config
    assert back.normalize == normalize and not back.training
    assert torch.equal(back.encode(z), sae.encode(z)) and torch.equal(back(z), sae(z))
    assert (sae.encode(z) != 0).any()

@pytest.mark.parametrize('kind', SAES)
def test_a_code_does_not_depend_on_its_company(kind):
    sae, z = trained(kind), data(50, seed=3)
    assert torch.allclose(sae.encode(z)[7:9], sae.encode(z[7:9]), atol=1e-6)

@pytest.mark.parametrize('kind', SAES)
@pytest.mark.parametrize('normalize', [True, False])
def test_every_kind_is_blind_to_length_only_where_normalised(kind, normalize):
    sae, z = trained(kind, normalize), data(30, seed=4)
    assert torch.allclose(sae.encode(z), sae.encode(8*z), atol=1e-5) == normalize

# --- one by one

@pytest.mark.parametrize('k', [1, 3, 10])
def test_exceeded(k):
    p = variant(ReLUSAE)[1]
    ranked = sorted(p.flatten().tolist(), reverse=True)
    assert exceeded(p, k).item() == ranked[min(k*8, 79)]
    assert k == 10 or (p > exceeded(p, k)).sum() == k*8

def test_relu_and_jumprelu_are_their_formulas():
    relu, p = variant(ReLUSAE)
    assert relu.act(p).tolist() == [[max(v, 0.) for v in row] for row in p.tolist()]
    jump, p = variant(JumpReLUSAE)
    theta = jump.threshold.tolist()
    assert jump.act(p).tolist() == [[v if v > t else 0. for v, t in zip(row, theta)] for row in p.tolist()]

def test_straight_through_gradients_are_the_formula():
    jump, p = variant(JumpReLUSAE)
    p, theta = p.detach().requires_grad_(), jump.threshold.detach().requires_grad_()
    eps, g = .8, torch.randn(8, 10, dtype=torch.float64)
    ps, ts, gs = p.tolist(), theta.tolist(), g.tolist()
    near = [[abs(v - t) < eps/2 for v, t in zip(row, ts)] for row in ps]
    assert any(map(any, near))
    def estimate(j, factor): return sum(factor/eps*gs[i][j] for i in range(8) if near[i][j])

    (JumpReLU.apply(p, theta, eps)*g).sum().backward()
    assert theta.grad.tolist() == pytest.approx([estimate(j, -t) for j, t in enumerate(ts)], abs=1e-6)
    assert p.grad.tolist() == [[o if v > t else 0. for v, t, o in zip(row, ts, o)] for row, o in zip(ps, gs)]
    theta.grad = None
    (Step.apply(p, theta, eps)*g).sum().backward()
    assert theta.grad.tolist() == pytest.approx([estimate(j, -1) for j in range(10)], abs=1e-6)

def test_relu_and_jumprelu_losses_are_their_formulas():
    def price(s, var): return .3*s.sum().item()/8/var.item()**.5
    def off_target(s, var): return ((s != 0).sum().item()/8/2 - 1)**2
    for make, extra in (ReLUSAE, price), (JumpReLUSAE, off_target):
        sae, _ = variant(make)
        u = torch.randn(8, 5, dtype=torch.float64)
        p, var = sae.pre(u), u.var(0, correction=0).sum()
        s = sae.act(p)
        e = u - sae.decode(s)
        want = (e**2).sum().item()/8/var.item() + extra(s, var)
        assert sae.loss(u, p, s, e, var).item() == pytest.approx(want, rel=1e-6)

@pytest.mark.parametrize('make', [ReLUSAE, JumpReLUSAE])
def test_dead_features_without_activation_get_a_gradient(make):
    sae, p = variant(make)
    p = (p.detach() - 100).requires_grad_()
    dead = torch.arange(10) < 4
    sae.revive(p, None, dead).backward()
    assert (p.grad[:, dead] < 0).all() and (p.grad[:, ~dead] == 0).all()
    assert pre_activation_loss(p + 1000, 0., dead) == 0

def test_batchtopk_keeps_the_largest_of_the_batch_in_training_and_asks_the_threshold_afterwards():
    sae, p = variant(BatchTopKSAE)
    rows = p.tolist()
    cut = sorted((max(v, 0.) for row in rows for v in row), reverse=True)[15]   # k B = 16
    assert sae.train().act(p).tolist() == [[v if v >= cut else 0. for v in row] for row in rows]
    sae.threshold.fill_(.7)
    assert sae.eval().act(p).tolist() == [[v if v > .7 else 0. for v in row] for row in rows]

def test_batchtopk_threshold_is_the_mean_over_batches():
    sae, u = variant(BatchTopKSAE)[0], torch.randn(12, 5, dtype=torch.float64)
    sae.finish(u, batch_size=4)
    separating = [exceeded(sae.pre(x).relu(), 2).item() for x in (u[:4], u[4:8], u[8:])]
    assert sae.threshold.item() == pytest.approx(sum(separating)/3)

def test_matryoshka_loss_is_the_mean_fvu_of_the_prefixes():
    sae, _ = variant(MatryoshkaSAE, n=20)
    assert sae.prefixes == [1, 2, 5, 10]
    u = torch.randn(8, 5, dtype=torch.float64)
    p, var = sae.pre(u), u.var(0, correction=0).sum()
    s = sae.act(p)
    want = 0.
    for m in (1, 2, 5, 10, 20):
        cut = s.clone()
        cut[:, m:] = 0
        rebuilt = [loop_decode(sae, row) for row in cut.tolist()]
        want += sum((a - b)**2 for x, y in zip(u.tolist(), rebuilt) for a, b in zip(x, y))/8/var.item()/5
    assert sae.loss(u, p, s, u - sae.decode(s), var).item() == pytest.approx(want, rel=1e-6)
