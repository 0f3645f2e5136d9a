"Convolutions that do their norms' work: the same answers and gradients, also of copies; what may not, stays."
from copy import deepcopy

import pytest
import torch
from torch import nn

from sae_ft.clip import Classifier, load_clip
from sae_ft.plumbing.folding import FoldedConv, FoldedNorm, fold_norms, pairs

def with_statistics(net, seed=0):
    "The net in eval mode, its norms with numbers of their own."
    g = torch.Generator().manual_seed(seed)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for o in (m.running_mean, m.bias): o.data.normal_(std=.3, generator=g)
            for o in (m.running_var, m.weight): o.data.uniform_(.5, 2., generator=g)
    return net.double().eval()

def net_of(bias):
    return with_statistics(nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=bias, stride=2), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 4, 3, bias=bias, groups=2), nn.BatchNorm2d(4), nn.Flatten()))

X = torch.randn(5, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

def gradients(net):
    net.zero_grad()
    net(X).pow(2).sum().backward()
    return [p.grad for p in net.parameters()]

@pytest.mark.parametrize('bias', [True, False])
def test_answers_and_all_gradients_are_the_same(bias):
    plain = net_of(bias)
    net = deepcopy(plain)
    assert fold_norms(net, X[:1]) == 2
    assert torch.allclose(net(X), plain(X), rtol=1e-12)
    for a, b in zip(gradients(net), gradients(plain)): assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)
    assert list(net.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in net.state_dict().items())

def test_a_copy_has_norms_of_its_own():
    net = net_of(False)
    fold_norms(net, X[:1])
    copy = deepcopy(net)
    with torch.no_grad(): net[1].weight.mul_(3.)
    assert copy[0].norm[0] is copy[1] and not torch.allclose(copy(X), net(X))
    other = net_of(False)
    other.load_state_dict(net.state_dict())  # as a plain one reads it
    assert torch.allclose(other(X), net(X), rtol=1e-12)

def test_a_norm_that_trains_sees_its_batch():
    plain = net_of(True)
    net = deepcopy(plain)
    fold_norms(net, X[:1])
    for o in (net, plain): o.train()
    assert torch.allclose(net(X), plain(X), rtol=1e-12)
    assert torch.allclose(net[1].running_mean, plain[1].running_mean, rtol=1e-12)
    for o in (net, plain): o.eval()
    assert torch.allclose(net(X), plain(X), rtol=1e-12)

class Shared(nn.Module):
    "A convolution with two norms, and a norm of two convolutions."
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.n, self.m, self.both = nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    def forward(self, x):
        h = self.a(x)
        return self.n(h) + self.m(h) + self.both(self.b(x)) + self.both(self.c(x))

def test_what_is_used_twice_is_not_folded():
    net = with_statistics(Shared())
    want = net(X)
    assert pairs(net, X[:1]) == [] and fold_norms(net, X[:1]) == 0 and torch.equal(net(X), want)

@pytest.mark.parametrize('lacks', ['affine', 'track_running_stats'])
def test_norms_without_a_line_of_their_own_stay(lacks):
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, **{lacks: False})).double().eval()
    assert fold_norms(net, X[:1]) == 0 and type(net[0]) is nn.Conv2d

def test_the_embedded_clip_is_folded_whole():
    visual = load_clip().model.visual
    plain, x = deepcopy(visual), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tower = Classifier(visual, torch.eye(256)).visual
    norms = [m for m in tower.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 31 and all(type(m) is FoldedNorm for m in norms)
    assert sum(type(m) is FoldedConv for m in tower.modules()) == 31
    with torch.no_grad(): assert torch.allclose(tower(x), plain(x), atol=1e-4*plain(x).abs().max().item())
