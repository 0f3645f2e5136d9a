"Drift compensation on three classes in two dimensions, by hand, and what holds for any numbers."
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch import nn

from sae_ft.drift_compensation import align_head, class_covariances, covariance_loss
from sae_ft.drift_compensation import gaussian_draws, mean_shift, nearest_mean, whitening
from sae_ft.drift_map import class_means

OLD = torch.tensor([[1., 0.], [-1., 0.]])                    # pictures of the class being learned
MEANS = torch.tensor([[1., 1.], [-1., -1.], [0., 0.]])       # stored, and its own
def turned(x): return torch.stack([-x[:, 1], x[:, 0]], 1)    # by 90 degrees

@settings(max_examples=40, deadline=None)
@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(.01, 50))
def test_a_translation_is_compensated_exactly_at_any_width(a, b, sigma):
    t = torch.tensor([a, b])
    assert torch.allclose(mean_shift(MEANS, OLD, OLD + t, sigma), t.expand(3, 2), atol=1e-5)

@pytest.mark.parametrize('sigma, part', [(1., 1 - math.hypot(2 - math.tanh(1), math.tanh(1))/2),
                                         (.05, 1 - math.sqrt(.5)), (1e3, 0.)])
def test_a_rotation_is_compensated_partly(sigma, part):
    left = (MEANS + mean_shift(MEANS, OLD, turned(OLD), sigma) - turned(MEANS)).norm(dim=1)
    was = (MEANS - turned(MEANS)).norm(dim=1)
    assert (1 - left/was)[:2].tolist() == pytest.approx([part]*2, abs=1e-4)

def test_a_mean_far_from_all_pictures_still_has_a_shift():
    assert torch.allclose(mean_shift(1e4*MEANS, OLD, OLD + 1, .1), torch.ones(3, 2), atol=1e-5)

@pytest.mark.parametrize('sigma', [0, 0., -1., float('nan')])
def test_a_width_must_be_positive(sigma):
    with pytest.raises(ValueError, match='must be above 0'): mean_shift(MEANS, OLD, OLD, sigma)

def whole(n=9, d=4):
    torch.manual_seed(0)
    z, y = torch.randn(n, d), torch.arange(n) % 3
    return z, y, whitening(class_covariances(z, y, [0, 1, 2]))[y]

def test_the_covariance_loss_is_zero_where_nothing_moved_or_all_moved_alike():
    z, y, A = whole()
    assert covariance_loss(z, z, y, A).item() == 0
    assert covariance_loss(z + 3, z, y, A).item() < 1e-4
    assert covariance_loss(2*z, z, y, A).item() > .1

def test_the_covariance_loss_in_loops():
    z, y, A = whole()
    new, S = z*torch.tensor([2., 1., 1., .5]), class_covariances(z, y, [0, 1, 2]) + 1e-3*torch.eye(4)
    def d(a, b, c): return ((a - b) @ torch.linalg.pinv(S[c]) @ (a - b)).sqrt()
    want = sum((d(z[i], z[j], y[i]) - d(new[i], new[j], y[i])).abs()
               for i in range(9) for j in range(i + 1, 9) if y[i] == y[j])/9
    assert covariance_loss(new, z, y, A).item() == pytest.approx(want.item(), rel=1e-3)

def test_its_gradient_is_finite_where_two_pictures_are_equal():
    z, y, A = whole()
    z[3] = z[0]
    new = (z*1.5).requires_grad_()
    covariance_loss(new, z, y, A).backward()
    assert new.grad.isfinite().all() and new.grad.abs().sum() > 0

def test_draws_have_the_stored_moments():
    torch.manual_seed(0)
    mu, half = torch.tensor([[3., 1.], [0., -2.]]), torch.randn(2, 2, 2)
    z, y = gaussian_draws(mu, half @ half.mT, torch.tensor([1, 1]), 1, n=20_000, ridge=0.)
    assert torch.allclose(class_means(z, y, [0, 1]), mu, atol=.05)
    assert torch.allclose(class_covariances(z, y, [0, 1]), half @ half.mT, atol=.15)
    assert torch.equal(z, gaussian_draws(mu, half @ half.mT, torch.tensor([1, 1]), 1, n=20_000, ridge=0.)[0])

def test_alignment_changes_the_rows_it_is_told_to():
    torch.manual_seed(0)
    head, mu = nn.Linear(3, 4), torch.eye(3)
    before = head.weight.detach().clone()
    z, y = gaussian_draws(mu[:2], .001*torch.eye(3).expand(2, 3, 3), torch.tensor([0, 0]), 0, n=64)
    align_head(head, [2, 0], z, y, epochs=30)
    assert torch.equal(head.weight[[1, 3]], before[[1, 3]]) and not torch.equal(head.weight, before)
    answers = head(F.normalize(mu[:2], dim=-1))[:, [2, 0]].argmax(1)
    assert answers.tolist() == [0, 1]

def test_means_of_a_class_without_pictures():
    y = torch.tensor([0, 1])
    with pytest.raises(ValueError, match='class 7 has no picture'): class_means(OLD, y, [7])
    assert nearest_mean(OLD, OLD.flip(0)).tolist() == [1, 0]
    assert class_covariances(OLD, torch.tensor([0, 1]), [0]).abs().sum() == 0
