"Model steering: its weights, its limits, and a running mean that does not depend on the order of a batch."
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn

from sae_ft.losses_drrho import DRRho, LogMeans, log_loss, log_pair_means, steered_mean

losses = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=8)

@settings(max_examples=50, deadline=None)
@given(losses, st.floats(.05, 50))
def test_it_lies_between_the_mean_and_the_worst(values, tau):
    d = torch.tensor(values, dtype=torch.float64)
    got = steered_mean(d, tau).item()
    assert d.mean().item() - 1e-9 <= got <= d.max().item() + 1e-9

def test_the_gradient_is_a_softmax_of_excesses():
    d = torch.tensor([0., 1., 3.], requires_grad=True)
    steered_mean(d, .7).backward()
    assert torch.allclose(d.grad, torch.softmax(d.detach()/.7, 0))

def test_limits():
    d = torch.tensor([-3., 1., 2.], dtype=torch.float64, requires_grad=True)
    for tau, weights, value in (1e-3, [0., 0., 1.], 2.), (1e6, [1/3]*3, 0.):
        loss = steered_mean(d, tau)
        assert loss.item() == pytest.approx(value, abs=2e-3)
        assert torch.autograd.grad(loss, d)[0].tolist() == pytest.approx(weights, abs=1e-5)

@pytest.mark.parametrize('tau', [.01, 1., 100., 1e6])
def test_with_an_equal_reference_the_gradient_is_that_of_the_mean(tau):
    torch.manual_seed(0)
    head, z, y = nn.Linear(5, 3), torch.randn(7, 5, requires_grad=True), torch.tensor([0, 1, 2, 0, 1, 1, 2])
    def logits(): return head(F.normalize(z, dim=-1))
    want = torch.autograd.grad(F.cross_entropy(logits(), y), z)[0]
    loss = DRRho(head.weight, head.bias, tau)(z, logits(), y, z.detach())
    assert loss.abs().item() < 1e-6 and torch.allclose(torch.autograd.grad(loss, z)[0], want, atol=1e-6)

def test_a_picture_that_the_reference_knows_weighs_more_than_one_that_both_get_wrong():
    W, y = 5*torch.eye(3), torch.tensor([0, 1])
    z0 = F.one_hot(torch.tensor([0, 2]), 3).float()     # right, wrong
    z = torch.tensor([[.1, 1., 0.], [0., .1, 1.]])      # both wrong now
    logits = (F.normalize(z, dim=-1) @ W.T).requires_grad_()
    DRRho(W, torch.zeros(3), 1.)(z, logits, y, z0).backward()
    assert logits.grad[0].abs().sum() > 10*logits.grad[1].abs().sum()

def test_pairs_in_loops():
    torch.manual_seed(0)
    s, s0, tau = torch.rand(4, 4, dtype=torch.float64), torch.rand(4, 4, dtype=torch.float64), .2
    def g(i):
        others = [j for j in range(4) if j != i]
        return sum(math.exp(((s[i, j] - s[i, i]) - (s0[i, j] - s0[i, i])).item()/tau) for j in others)/3
    assert log_pair_means(s, s0, tau).tolist() == pytest.approx([math.log(g(i)) for i in range(4)])

def test_small_temperatures_do_not_overflow():
    s = torch.tensor([[-1., 1.], [1., -1.]], requires_grad=True)
    log_g = log_pair_means(s, -s.detach(), .01)         # 400: exp of it is infinite
    loss = log_loss(log_g, LogMeans(2).take(log_g.detach(), torch.tensor([0, 1])), .01).mean()
    loss.backward()
    assert loss.item() == pytest.approx(4) and s.grad.isfinite().all() and s.grad.abs().sum() > 0

def test_running_means_do_not_depend_on_the_order_and_are_in_the_state():
    a, b, log_g, y = LogMeans(3), LogMeans(3), torch.randn(6), torch.tensor([0, 2, 0, 2, 2, 0])
    for i in range(2):
        a.take(log_g + i, y)
        b.take(log_g.flip(0) + i, y.flip(0))
    assert torch.allclose(a.log_u, b.log_u) and a.log_u[1].isneginf()
    c = LogMeans(3)
    c.load_state_dict(a.state_dict())
    assert torch.equal(c.log_u, a.log_u)

def test_one_picture_has_no_others():
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match='raise batch_size'): log_pair_means(one, one, 1.)
