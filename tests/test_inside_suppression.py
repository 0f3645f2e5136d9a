"Attributes, correlations and suppression, against sums and in a tower with a known answer."
import datasets
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from sae_ft.activations import Taps
from sae_ft.clip import Classifier
from sae_ft.evaluation import answer
from sae_ft.inside_activations import embed_with, record
from sae_ft.inside_steering import Neurons
from sae_ft.inside_suppression import (
    ATTRIBUTES, WAYS, best_of, by_layer_and_number, coloured_paper, compared_once, corner_badge, correlations,
    layer_of, marked, mean_codes, off, over_random, plant_attribute, projected_out, saes_of)
from sae_ft.interventions import PAPERS, plant, worst_group
from sae_ft.sae_kinds import SAES
from sae_ft.suites import Split, Suite
from tiny_towers import QUIET, Noise, vit

POINT = 'resid_post.0'

def pictures(n, classes=4):
    rng = np.random.default_rng(0)
    images = [PIL.Image.fromarray(rng.integers(0, 2, (20, 20), dtype=np.uint8)*255) for _ in range(n)]
    features = datasets.Features(image=datasets.Image(),
                                 label=datasets.ClassLabel(names=[f'c{i}' for i in range(classes)]))
    return datasets.Dataset.from_dict(dict(image=images, label=[i % classes for i in range(n)]),
                                      features=features)

@pytest.fixture(scope='module')
def suite():
    splits = {k: Split(k, pictures(16)) for k in ('line', 'line-new', 'solid')}
    return Suite('small', [f'c{i}' for i in range(4)], ['{}'], pictures(48), pictures(16), splits)

def arrays(ds): return np.stack([np.asarray(o.convert('RGB')) for o in ds['image']])

def test_paper_is_that_of_plant(suite):
    classes = dict(a=['c0', 'c2'], b=['c1', 'c3'])
    ours, theirs = plant_attribute(suite, classes, ATTRIBUTES['paper'], seed=3), plant(suite, classes, seed=3)
    for a, b in ((ours.train, theirs.train), (ours.val, theirs.val),
                 (ours.splits['test'].data, theirs.splits['test'].data)):
        assert a['colour'][:] == b['colour'][:] and a['label'][:] == b['label'][:]
        assert (arrays(a) == arrays(b)).all()

def test_a_badge_is_in_its_corner_and_leaves_the_picture_given_as_it_was():
    white = PIL.Image.new('RGB', (50, 50), 'white')
    found = np.asarray(corner_badge((1, 2, 3), side=.2)(white))
    rows, columns = np.nonzero((found != 255).any(-1))
    assert rows.max() <= 11 and columns.max() <= 11 and tuple(found[6, 6]) == (1, 2, 3)
    assert (np.asarray(white) == 255).all()
    assert coloured_paper(PAPERS[1])(white).getpixel((0, 0)) == PAPERS[1]

def test_marked_draws_what_the_column_says():
    ds = pictures(6).add_column('colour', [0, 1, 1, 0, 1, 0])
    draw = tuple(lambda im, k=k: PIL.Image.new('RGB', im.size, (k, k, k)) for k in (10, 20))
    assert arrays(marked(ds, draw))[:, 0, 0, 0].tolist() == [10, 20, 20, 10, 20, 10]

def test_correlations_are_numpys():
    rng = np.random.default_rng(0)
    codes, a = rng.random((30, 5)), rng.integers(0, 2, 30)
    codes[:, 3] = .7
    found = correlations(torch.tensor(codes), a)
    for j in (0, 1, 2, 4):
        assert found[j].item() == pytest.approx(np.corrcoef(codes[:, j], a)[0, 1], abs=1e-5)
    assert found[3] == 0
    with pytest.raises(ValueError, match='all 30 pictures have the value 1'):
        correlations(torch.tensor(codes), [1]*30)
    with pytest.raises(ValueError, match='30 pictures need as many values, not 2'):
        correlations(torch.tensor(codes), [0, 1])

@pytest.fixture(scope='module')
def tokens(tmp_path_factory):
    return record(vit(), Noise(12, 16), [POINT], tmp_path_factory.mktemp('tokens'), most_mb=0, **QUIET)

def test_mean_codes_of_many_parts(tokens, monkeypatch):
    monkeypatch.setattr('sae_ft.inside_suppression.AT_ONCE', 64)   # a few tokens at a time
    torch.manual_seed(0)
    x = tokens[POINT].sample()[0].view(12, -1, 8)
    for dictionary in (SAES['topk'](8, 2, 3, False).eval(), Neurons(8)):
        with torch.no_grad(): want = dictionary.encode(x.flatten(0, 1)).view(12, x.shape[1], -1).mean(1)
        torch.testing.assert_close(mean_codes(dictionary, tokens[POINT]), want)

def test_rank_by_size_or_by_rise(tokens):
    sae = saes_of(tokens, expansion=1, k=3, epochs=1)[POINT]
    a = torch.arange(12) % 2
    layer = layer_of(sae, tokens[POINT], a)
    r = correlations(layer.units, a)
    assert layer.first(layer.units, 3) == r.abs().topk(3).indices.tolist()
    rising = layer_of(sae, tokens[POINT], a, by=lambda r: r)
    assert rising.first(rising.units, 3) == r.topk(3).indices.tolist()
    with pytest.raises(ValueError, match='9 features cannot be chosen from 8'): layer.first(layer.units, 9)

def test_after_the_projection_the_means_are_the_same_and_nothing_else_has_moved(tokens):
    tower = vit()
    a = torch.arange(12) % 3 == 0
    layer = layer_of(saes_of(tokens, expansion=1, k=3, epochs=1)[POINT], tokens[POINT], a.long())
    function = WAYS['mean projection'].make(layer, 1, 0)
    x = torch.stack([Noise(12, 16)[i][0] for i in range(12)])
    with torch.no_grad(), Taps(tower, [POINT]) as taps: tower(x)
    before = taps.last[POINT]
    after = function(before)
    gap = after[a].mean((0, 1)) - after[~a].mean((0, 1))
    assert gap.norm() < .01*(before[a].mean((0, 1)) - before[~a].mean((0, 1))).norm()   # means are in 16 bits
    assert torch.linalg.matrix_rank((after - before).flatten(0, 1), rtol=1e-3) == 1

def test_off_is_zero_of_a_unit(tokens):
    x = torch.randn(2, 5, 8)
    found = off(Neurons(8), [1, 4])(x)
    assert (found[..., [1, 4]] == 0).all()
    torch.testing.assert_close(found[..., [0, 2, 3, 5, 6, 7]], x[..., [0, 2, 3, 5, 6, 7]])

class Through(nn.Module):
    "A tower of one token: pictures (N, 5, 1, 1) -> (N, 5)."
    def __init__(self):
        super().__init__()
        self.early, self.late = nn.Identity(), nn.Identity()
    def forward(self, x):
        return self.late(self.early(x.flatten(1)[:, None]))[:, 0]

def plain_sae(d):
    sae = SAES['topk'](d, 1, d, False).eval().requires_grad_(False)
    for layer in (sae.encoder, sae.decoder): layer.weight.copy_(torch.eye(d))
    return sae

def test_a_known_shortcut_is_found_and_taken_out_at_the_layer_where_it_is(tmp_path):
    a, y = torch.tensor([0, 0, 2, 2]*4), torch.tensor([0, 1]*8)
    x = torch.stack([torch.zeros(16), a, y == 0, y == 1, torch.ones(16)], 1).float()
    toys = TensorDataset(x[..., None, None], y)
    W = torch.tensor([[0., -.4, 1, 0, 0], [0, .4, 0, 1, 0]])
    toy = Classifier(Through(), W).eval().requires_grad_(False)
    recorded = record(toy.visual, toys, ['early', 'late'], tmp_path, **QUIET)
    layers = {k: layer_of(plain_sae(5), o, (a > 0).long()) for k, o in recorded.items()}
    def judge(functions):
        z, _ = embed_with(toy, toys, functions, **QUIET)
        found = worst_group(answer(toy, z), y, (2*y + a//2).tolist())
        return dict(worst=found['worst'], mean=found['mean'])
    assert judge({}) == dict(worst=0., mean=.75)
    table = by_layer_and_number(judge, layers, (1, 2))
    assert table.groupby('way').size().to_dict() == {'SAE features': 4, 'neurons': 4, 'mean projection': 2}
    assert (table[table.m == 1].worst == 1).all()
    chosen = best_of(table, ['worst', 'mean'])
    assert chosen.loc['SAE features', ['point', 'm']].tolist() == ['early', 1]   # the first of equals
    once = compared_once(judge, layers, chosen, draws=4)
    assert once.way.value_counts().to_dict() == {
        'random features': 4, 'as it is': 1, 'SAE features': 1, 'neurons': 1, 'mean projection': 1}
    random = once[once.way == 'random features']
    assert (random.point == 'early').all() and (random.m == 1).all() and (random.worst < 1).all()
    gain = over_random(once.assign(seed=5), 'worst')
    assert gain.to_dict() == {5: pytest.approx(1 - random.worst.mean())}

def test_the_best_of_equals_and_the_second_column():
    rows = [('x', 'a', 1, .5, .7), ('x', 'b', 1, .5, .8), ('x', 'b', 2, .5, .8), ('y', 'a', 1, .1, .2)]
    chosen = best_of(pd.DataFrame(rows, columns=['way', 'point', 'm', 'worst', 'mean']), ['worst', 'mean'])
    assert chosen.index.tolist() == ['x', 'y']
    assert chosen.loc['x', ['point', 'm']].tolist() == ['b', 1]

def test_all_tokens_lie_at_the_centre_along_a_direction_that_is_projected_out():
    x = torch.randn(2, 3, 8)
    found = projected_out(torch.tensor([2.] + [0.]*7), torch.full((8,), 4.))(x)
    assert torch.allclose(found[..., 0], torch.tensor(4.)) and torch.equal(found[..., 1:], x[..., 1:])
