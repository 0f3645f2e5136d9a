"Exercises from CLIP to the prices: the right answers are the package's own, at sizes that no row has."
import pytest
import torch
import torch.nn.functional as F

from sae_ft.data import ordered, stratified
from sae_ft.exercise_rows import BEFORE_TUNING
from sae_ft.losses import L1, L2, Nuclear
from sae_ft.losses_sae import AddRemove, Preservation, Residual
from sae_ft.sae import TopKSAE, fvu
from sae_ft.sae_kinds import BatchTopKSAE, JumpReLU
from sae_ft.sae_train import lr_factor, measure

ROWS = {o.name: o for o in BEFORE_TUNING}
def right(name): return ROWS[name].right

@pytest.fixture
def z(): return torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(5))

def close(a, b): return torch.testing.assert_close(torch.as_tensor(a).float(), torch.as_tensor(b).float())

def test_names_differ(): assert len(ROWS) == len(BEFORE_TUNING)

def test_data():
    assert ordered(['10', '2', '1']) == right('data-order')
    rows = stratified([0]*60 + [1]*30 + [2]*10, 10)
    assert [sum(a <= i < b for i in rows) for a, b in ((0, 60), (60, 90), (90, 100))] == right('data-strata')

def test_codes(z):
    sae = TopKSAE(8, k=3, relu=False)
    p = sae.pre(sae.normalise(z[0])).detach()
    close(right('sae-topk')(p, 3), sae.act(p))
    sae.relu = True
    close(right('sae-relu')(p, 3), sae.act(p))
    close(right('sae-fvu')(*z), fvu(*z))
    close(right('kinds-jump')(p, .2), JumpReLU.apply(p, torch.full((32,), .2), .1))
    s, found = sae.encode(z[0]), measure(sae, z[0])
    close([right('train-l0')(s), right('train-dead')(s)], [found['l0'], found['dead']])
    assert lr_factor(250, 300) == right('train-rate')

def test_a_batch_shares_what_is_on():
    batch = BatchTopKSAE(2, expansion=1, k=1, normalize=False).train()
    on = batch.act(torch.tensor([[3., 2.], [1., .5]])) > 0
    assert on.sum(1).tolist() == right('kinds-batch')

def test_shrinkage_is_the_least():
    x, lam, s = .7, .4, torch.linspace(0, 1, 1001)
    close(s[((x - s)**2 + lam*s).argmin()], right('kinds-shrink')(x, lam))

def test_prices_on_embeddings(z):
    close(right('losses-l2')(*z), L2()(*z))
    close(right('losses-l1')(*z), L1()(*z))
    z0 = F.normalize(z[0], dim=-1)
    assert abs(L2()(5*z0, z0) - right('losses-longer')) < 1e-6
    sets = torch.eye(9)[[0]*9], torch.eye(9)
    close([Nuclear.official()(o, torch.zeros(9, 9)) for o in sets], right('losses-nuclear'))

def test_prices_on_codes(z):
    sae = TopKSAE(8, k=3)
    s, s0, u, u0 = (f(o).detach() for f in (sae.encode, sae.normalise) for o in z)
    close(right('prices-preservation')(s, s0), Preservation(sae)(*z))
    close(right('prices-fading')(s, s0, .3), AddRemove(sae, .3)(*z))
    close(right('prices-residual')(u - u0, s - s0, sae.decoder.weight.detach()), Residual(sae)(*z))
    s0, s = torch.tensor([[2., 0, 0, 1]]), torch.tensor([[0., 3, 0, 5]])
    assert right('prices-preservation')(s, s0) == right('prices-new')
