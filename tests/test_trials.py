"The variants that were tried: their prices by hand, and views of pictures."
import importlib.util
from pathlib import Path

import pytest
import torch

from sae_ft.losses import Move
from sae_ft.losses_sae import Preservation
from sae_ft.methods import METHODS
from tiny_saes import random_sae

@pytest.fixture(scope='module')
def variants():
    "The script, without its rows left in the table."
    before = dict(METHODS)
    spec = importlib.util.spec_from_file_location('variants', Path(__file__).parent/'trials'/'variants.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in METHODS.keys() - before.keys(): del METHODS[name]
    return module

@pytest.fixture
def moved():
    sae = random_sae(d=6, seed=1)
    z0 = torch.randn(7, 6, dtype=torch.float64)
    return sae, Move(z0 + .3*torch.randn(7, 6, dtype=torch.float64), z0)

def strengths(sae, move):
    "p and p0 of each picture, and the weakest p0 that is on."
    p, p0 = (sae.pre(sae.normalise(o)).tolist() for o in (move.z, move.z0))
    return [(a, b, sorted(b)[-sae.k]) for a, b in zip(p, p0)]

def test_prices_before_top_k_by_hand(variants, moved):
    sae, move = moved
    rows = strengths(sae, move)
    def rises(p, p0, w): return sum(max(a - max(b, w/2), 0) for a, b in zip(p, p0) if b < w)
    def fades(p, p0, w): return sum(max(b - a, 0) for a, b in zip(p, p0) if b >= w)
    def any_change(p, p0, w): return sae.k/sae.n*sum(abs(a - b) for a, b in zip(p, p0))
    def mean(f): return sum(f(*o) for o in rows)/len(rows)
    assert variants.Margin(sae).price(move).item() == pytest.approx(mean(rises))
    assert variants.Kept(sae).price(move).item() == pytest.approx(mean(rises) + mean(fades))
    assert variants.Dense(sae).price(move).item() == pytest.approx(mean(any_change))

def test_features_that_all_weigh_the_same_are_preservation(variants, moved):
    sae, move = moved
    weighted = variants.Weighted(sae, torch.randn(9, 6, dtype=torch.float64))
    assert weighted.weight.mean().item() == pytest.approx(1)
    weighted.weight = torch.ones(sae.n, dtype=torch.float64)
    assert weighted.price(move).item() == pytest.approx(Preservation(sae).price(move).item())

def test_what_did_not_move_costs_nothing(variants, moved):
    sae, move = moved
    still = Move(move.z0, move.z0)
    prices = [o(sae) for o in (variants.Margin, variants.Kept, variants.Dense)]
    assert [o.price(still).item() for o in prices] == pytest.approx([0, 0, 0], abs=1e-12)

def test_a_schedule_goes_from_nothing_to_twice_the_price_or_back(variants, moved):
    sae, move = moved
    price = Preservation(sae)
    full = sum(price.parts_of(move).values()).item()
    for rises, want in ((True, [0, .5, 1, 1.5, 2, 2]), (False, [2, 1.5, 1, .5, 0, 0])):
        scheduled = variants.Scheduled(price, 4, rises)
        got = [sum(scheduled.parts_of(move).values()).item()/full for _ in range(6)]
        assert got == pytest.approx(want)

def test_views_stay_pictures(variants):
    torch.manual_seed(0)
    x = torch.rand(64, 3, 9, 9)*2 - 1
    y = variants.view(x)
    assert y.shape == x.shape and y.abs().max() <= 1 and (y != x).flatten(1).any(1).all()
    assert sum(torch.equal(a, -b) for a, b in zip(y, x)) in range(3, 30)  # a fifth is inverted
