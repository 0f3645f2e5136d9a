"The sparse path of a training step against autograd through dense codes, in float64."
import pytest
import torch

from sae_ft.sae import TopKSAE, aux_loss, fvu_of_dead
from sae_ft.sae_kinds import SAES, ReLUSAE, kind_named
from sae_ft.sae_sparse import (
    Picks, by_columns, goes_sparse, sparse_aux, sparse_pass, step_loss, times_on)
from tiny_saes import random_sae

def made(**kw):
    "A Top-k SAE with random parameters, and normalised embeddings."
    sae = random_sae(d=8, **{**dict(expansion=4, k=3), **kw})
    return sae, sae.normalise(torch.randn(40, 8, dtype=torch.float64))

def dense_pass(sae, u):
    s = sae.act(sae.pre(u))
    return sae.decode(s), s

def gradients(loss, sae):
    found = torch.autograd.grad(loss, list(sae.parameters()), retain_graph=True, allow_unused=True)
    return dict(zip(dict(sae.named_parameters()), found))

def same(a, b):
    assert list(a) == list(b)
    for name in a: assert torch.allclose(a[name], b[name], rtol=1e-9, atol=1e-12), name

@pytest.mark.parametrize('columns', [True, False])
@pytest.mark.parametrize('kw', [
    dict(), dict(k=1), dict(k=32), dict(relu=False), dict(bias=True), dict(bias=True, relu=False, k=7),
    dict(normalize=False), dict(expansion=1, k=8)])
def test_values_and_gradients_are_those_of_dense_codes(kw, columns):
    sae, u = made(**kw)
    by_columns(sae, columns)
    dense, s = dense_pass(sae, u)
    sparse, v, i = sparse_pass(sae, u)
    assert torch.allclose(torch.zeros_like(s).scatter(1, i, v), s) and torch.allclose(sparse, dense)
    weights = torch.randn_like(u)
    same(gradients((dense*weights).sum(), sae), gradients((sparse*weights).sum(), sae))

def test_fewer_than_k_activations_are_positive():
    sae, u = made(k=20, bias=True)
    sae.encoder.bias.data -= 2
    dense, s = dense_pass(sae, u)
    assert ((s > 0).sum(1) < 20).all() and (s > 0).any()
    sparse, v, _ = sparse_pass(sae, u)
    assert torch.equal((v > 0).sum(1), (s > 0).sum(1))
    same(gradients(dense.pow(2).sum(), sae), gradients(sparse.pow(2).sum(), sae))

def test_nothing_is_positive():
    sae, u = made(bias=True)
    sae.encoder.bias.data -= 100
    u_hat, v, _ = sparse_pass(sae, u)
    assert (v == 0).all() and torch.allclose(u_hat, sae.b_pre.expand_as(u))
    found = gradients(u_hat.sum(), sae)
    assert (found['encoder.weight'] == 0).all() and (found['decoder.weight'] == 0).all()

def test_ties_pick_k_all_the_same():
    sae, u = made(k=5)
    for p in sae.encoder.weight, sae.decoder.weight.T: p.data[:] = p.data[:1]  # every feature is the same
    dense, s = dense_pass(sae, u)
    sparse, v, i = sparse_pass(sae, u)
    assert all(len(set(row)) == 5 for row in i.tolist()) and torch.allclose(sparse, dense)
    total = [gradients(o.pow(2).sum(), sae)['encoder.weight'].sum(0) for o in (dense, sparse)]
    assert torch.allclose(*total)   # which of them gets it is nobody's business

@pytest.mark.parametrize('relu', [True, False])
@pytest.mark.parametrize('dying', [1, 3, 9, 20, 32])   # fewer and more than d/2 = 4, and all
def test_dead_features_get_the_same_gradients(dying, relu):
    sae, u = made(bias=True, relu=relu)
    dead = torch.arange(32) >= 32 - dying
    p = sae.pre(u)
    e = u - sae.decode(sae.act(p))
    by_mask = fvu_of_dead(p.masked_fill(~dead, 0.), sae.decoder.weight, e)   # as on a GPU
    want = aux_loss(sae, p, e, dead)
    got = sparse_aux(sae, u, e, dead)
    assert torch.allclose(got, want) and torch.allclose(by_mask, want) and want > 0
    same(gradients(want, sae), gradients(got, sae))
    same(gradients(want, sae), gradients(by_mask, sae))

def test_no_dead_features_behind_a_mask_have_no_gradient():
    sae, u = made()
    p = sae.pre(u)
    loss = fvu_of_dead(p*0., sae.decoder.weight, u - sae.decode(sae.act(p)))
    assert loss.isfinite() and all((g == 0).all() for g in gradients(loss, sae).values() if g is not None)

@pytest.mark.parametrize('kind', SAES)
def test_every_kind_has_a_loss_with_gradients(kind):
    torch.manual_seed(0)
    sae = kind_named(kind)(8, 8, 2).train()
    u = sae.normalise(torch.randn(50, 8))
    sae.start(u)
    loss, e, s, on = step_loss(sae, u, torch.tensor(1.), 1/32, torch.arange(64) < 9)
    codes = sae.act(sae.pre(u))
    assert (s is None) == kind.startswith('topk')
    assert torch.allclose(e, u - sae.decode(codes), atol=1e-6) and torch.equal(on, times_on(codes).to(on))
    assert all(g is None or g.isfinite().all() for g in gradients(loss, sae).values())

def test_the_loss_of_a_step_is_the_same_both_ways():
    sae, u = made(expansion=8, k=4)
    class Dense(TopKSAE): pass
    dense = Dense(8, 8, 4).double()
    dense.load_state_dict(sae.state_dict())
    assert goes_sparse(sae, u) and not goes_sparse(dense, u)
    var, dead = u.var(0).sum(), torch.arange(64) % 7 == 0
    for which in dead, dead & False, None:
        got, want = (step_loss(o, u, var, .1, which) for o in (sae, dense))
        assert torch.allclose(got[0], want[0]) and torch.equal(got[3], want[3].long())
        same(gradients(got[0], sae), gradients(want[0], dense))

def test_what_goes_sparse():
    u = torch.zeros(1, 8)
    assert goes_sparse(TopKSAE(8, 8, 4), u) and not goes_sparse(TopKSAE(8, 8, 5), u)
    assert not goes_sparse(ReLUSAE(8, 8, 4), u)
    assert not goes_sparse(TopKSAE(8, 8, 4), torch.zeros(1, 8, device='meta'))

def test_collect_is_the_sum_over_picks():
    i, w, x = torch.tensor([[3, 1], [1, 0], [3, 3]]), torch.rand(3, 2), torch.rand(3, 4)
    want = torch.zeros(5, 4)
    for b in range(3):
        for j in range(2): want[i[b, j]] += w[b, j]*x[b]
    assert torch.allclose(Picks(i, 5).collect(w, x), want)

def test_by_columns_changes_the_memory_only():
    sae, _ = made()
    D = sae.decoder.weight.detach().clone()
    by_columns(sae)
    assert torch.equal(sae.decoder.weight, D) and sae.decoder.weight.T.is_contiguous()
    by_columns(sae, False)
    assert torch.equal(sae.decoder.weight, D) and sae.decoder.weight.is_contiguous()
