"Edits of codes against plain sums, on SAEs small enough to check by hand; a planted shortcut against counts."
import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sae_ft.clip import Classifier
from sae_ft.interventions import (
    alike, causal, edit, effect, plant, set_to, spurious, switch_off, turn_up, worst_group)
from sae_ft.sae_kinds import SAES
from sae_ft.suites import Split, Suite

def random_sae(kind='topk', d=6, expansion=2, k=3, seed=0, normalize=True):
    torch.manual_seed(seed)
    sae = SAES[kind](d, expansion, k, normalize).eval().requires_grad_(False)
    sae.b_pre.copy_(.1*torch.randn(d))
    return sae

def plain_sae(d=4):
    "Codes are the positive parts of the coordinates of z, as they are."
    sae = SAES['topk'](d, 1, d, False).eval().requires_grad_(False)
    for layer in (sae.encoder, sae.decoder): layer.weight.copy_(torch.eye(d))
    return sae

def head(W): return Classifier(nn.Identity(), torch.tensor(W, dtype=torch.float)).requires_grad_(False)
def same(s): return s

@pytest.mark.parametrize('kind', SAES)
@pytest.mark.parametrize('normalize', [True, False])
def test_an_unchanged_code_gives_exactly_u(kind, normalize):
    sae, z = random_sae(kind, normalize=normalize), torch.randn(20, 6)
    assert torch.equal(edit(sae, z, same), F.normalize(z, dim=-1) if normalize else z)

@pytest.mark.parametrize('kind', SAES)
def test_off_removes_the_features_part_and_nothing_else(kind):
    sae, z = random_sae(kind), torch.randn(20, 6)
    s, u = sae.encode(z), F.normalize(z, dim=-1)
    for i in range(sae.n):
        want = torch.stack([u[r] - s[r, i]*sae.decoder.weight[:, i] for r in range(20)])
        torch.testing.assert_close(edit(sae, z, switch_off(i)), want)

def test_edits_add_up():
    sae, z = random_sae(), torch.randn(9, 6)
    u, D = sae.normalise(z), sae.decoder.weight
    def move(change): return edit(sae, z, change) - u
    torch.testing.assert_close(move(turn_up([1, 4], .3)), .3*(D[:, 1] + D[:, 4]).expand(9, -1))
    torch.testing.assert_close(move(turn_up(2, .6)), 2*move(turn_up(2, .3)))
    torch.testing.assert_close(move(switch_off([0, 1, 5])), sum(move(switch_off(i)) for i in (0, 1, 5)))
    torch.testing.assert_close(move(turn_up([3, 3], .2)), move(turn_up(3, .2)))

def test_set_to_and_the_codes_given_stay_as_they_were():
    s = torch.rand(5, 7)
    was = s.clone()
    to = set_to([2, 6], [.5, .25])(s)
    assert torch.equal(to[:, 2], torch.full((5,), .5)) and torch.equal(to[:, 6], torch.full((5,), .25))
    assert torch.equal(to[:, [0, 1, 3, 4, 5]], was[:, [0, 1, 3, 4, 5]])
    switch_off(1)(s), turn_up(1, 2.)(s)
    assert torch.equal(s, was)

def test_effect_by_hand():
    sae, clf = plain_sae(), head([[1., 0, 0, 0], [0, 1, 0, 0]])
    z = torch.tensor([[2., 1, 0, 0], [3, 1, 0, 0], [1, 2, 0, 0], [5, 4, 0, 0]])
    y = torch.tensor([0, 0, 1, 1])
    assert effect(clf, sae, z, y, switch_off(0)) == dict(before=.75, after=.5, changed=.75, n=4)
    assert effect(clf, sae, z, y, same) == dict(before=.75, after=.75, changed=0., n=4)

def test_alike_draws_the_nearest_and_never_the_same():
    s = torch.tensor([[1., 1, 0, 9, .9, 0], [1, 1.1, 0, 9, 1, .1]])
    assert alike(s, 0, near=1) in ([1], [4])
    for seed in range(20):
        found = alike(s, [0, 3], seed)
        assert len(set(found)) == 2 and not set(found) & {0, 3} and found == alike(s, [0, 3], seed)
    assert alike(s, 0, among=[5]) == [5]
    with pytest.raises(ValueError, match='no other feature left'): alike(s, list(range(6)))

def test_causal_by_hand():
    sae, clf = plain_sae(), head([[1., 0, 0, 0], [0, 1, 0, 0]])
    z, y = torch.tensor([[2., 1, 0, 0], [2, 1, 0, 0], [1, 2, 0, 0]]), torch.tensor([0, 0, 1])
    table = causal(clf, sae, z, y, {0: 0, 1: 1})
    first = table.loc[0]
    assert (first['name'], first['on'], first['code'], first['control']) == (0, 1., 2., 1)
    # without coordinate 0 both pictures are called 1; (1, 2) + (2, 0) is called 0
    assert (first['lost'], first['lost_control']) == (1., 0.)
    assert (first['called'], first['called_control']) == (1., 0.)
    assert list(causal(clf, sae, z, y, {0: 0, 1: 1}, only=[1]).index) == [1]

def test_causal_and_effect_say_what_is_wrong():
    sae, clf = plain_sae(), head([[1., 0, 0, 0], [0, 1, 0, 0]])
    z, y = torch.randn(6, 4), torch.tensor([0, 1]*3)
    for bad, text in [
            (dict(features={4: 0}), 'no feature 4'),
            (dict(features={0: 2}), 'no class 2'),
            (dict(features={}), 'no feature is named'),
            (dict(features={0: 0, 1: 1}, only=[2]), 'feature 2 has no name'),
            (dict(features={0: 0, 1: 0}), 'no other feature left')]:
        with pytest.raises(ValueError, match=text): causal(clf, sae, z, y, **bad)
    with pytest.raises(ValueError, match='cannot be checked'): causal(clf, sae, z, 0*y, {0: 0, 1: 1})
    with pytest.raises(ValueError, match='no class 7'): effect(clf, sae, z, y + 7 - y, same)
    with pytest.raises(ValueError, match='6 embeddings and 5 labels'): effect(clf, sae, z, y[:5], same)
    with pytest.raises(ValueError, match='at least one'): effect(clf, sae, z[:0], y[:0], same)

def test_edit_says_what_is_wrong():
    sae, z = random_sae(), torch.randn(5, 6)
    for change, text in [
            (switch_off(12), 'no feature 12'),
            (switch_off(-1), 'no feature -1'),
            (turn_up([], 1.), 'no feature is named'),
            (switch_off(.5), 'no feature 0.5'),
            (set_to([0, 1], [1., 2, 3]), '2 features need one value'),
            (lambda s: s[:, :3], 'must keep the shape')]:
        with pytest.raises(ValueError, match=text): edit(sae, z, change)
    for bad in (z[0], z[:, :5], z[None]):
        with pytest.raises(ValueError, match=r'shape \(N, 6\)'): edit(sae, bad, same)

def test_worst_group_by_hand():
    answers, y = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0, 1, 0, 0, 0])
    found = worst_group(answers, y, ['a', 'a', 'b', 'b', 'c'])
    assert found == dict(groups={'a': 1., 'b': .5, 'c': 0.}, mean=.6, worst=0.)
    with pytest.raises(ValueError, match='5 answers, 5 labels and 4 groups'): worst_group(answers, y, [0]*4)
    with pytest.raises(ValueError, match='at least one'): worst_group(answers[:0], y[:0], [])

def test_spurious_by_hand():
    "Coordinate 0 falls by 2 with the colour; 3 rises, but the head does not look at it."
    sae, clf = plain_sae(), head([[1., 0, 1, 0], [0, 1, 0, 0]])
    y, colour = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    z = torch.tensor([[3., 1, 0, 1], [1, 1, 0, 2], [3, 2, 1, 1], [1, 2, 1, 2]])
    torch.testing.assert_close(spurious(clf, sae, z, y, colour), torch.tensor([1., 0, 0, 0]))
    z[:, 2] += torch.tensor([2., 0, 2, 0])   # now 2 does as 0 does
    torch.testing.assert_close(spurious(clf, sae, z, y, colour), torch.tensor([.5, 0, .5, 0]))
    with pytest.raises(ValueError, match='class 1 has no picture of colour 1'):
        spurious(clf, sae, z, y, torch.tensor([0, 1, 0, 0]))
    with pytest.raises(ValueError, match='4 pictures need as many colours'):
        spurious(clf, sae, z, y, colour[:3])

@pytest.fixture(scope='module')
def icons():
    "40 pictures of each of 4 classes, grey of one value each."
    feats = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list('abcd')))
    def data(n):
        images = [PIL.Image.new('L', (4, 4), i % 256) for i in range(4*n)]
        rows = dict(image=images, label=[i % 4 for i in range(4*n)])
        return datasets.Dataset.from_dict(rows, features=feats)
    tests = {k: Split(k, data(15)) for k in ('one', 'two')}
    return Suite('icons', ['ant', 'bee', 'car', 'drum'], ['{}'], data(40), data(10), tests)

WORDS = {'animal': ['ant', 'bee'], 'thing': ['car', 'drum']}
def counts(ds): return np.histogram2d(ds['label'][:], ds['colour'][:], bins=2)[0].tolist()

@pytest.mark.parametrize('share,odd', [(.95, 3), (.9, 6), (.5, 30), (1, 0)])
def test_plant_is_as_correlated_and_as_balanced_as_asked(icons, share, odd):
    s = plant(icons, WORDS, share, sizes=(60, 10, 20), splits=('one', 'two'))
    assert counts(s.train) == [[60 - odd, odd], [odd, 60 - odd]]
    assert counts(s.val) == [[10, 10]]*2 and counts(s.splits['test'].data) == [[20, 20]]*2
    assert s.classnames == ['animal', 'thing'] and s.train.features['label'].names == ['animal', 'thing']

def test_plant_takes_pictures_of_the_classes_and_colours_their_paper(icons):
    classes, papers = {'x': ['bee'], 'y': ['drum']}, ((255, 0, 0), (0, 0, 255))
    s = plant(icons, classes, sizes=(40, 10, 30), splits=('one', 'two'), papers=papers)
    seen = {0: set(), 1: set()}
    for o in s.train:
        r, g, b = np.array(o['image'])[0, 0].tolist()
        assert g == 0 and (b == 0 if o['colour'] == 0 else r == 0)
        seen[o['label']].add(max(r, b))
    assert seen == {0: set(range(1, 160, 4)), 1: set(range(3, 160, 4))}   # every picture once

def test_plant_depends_on_the_seed_alone(icons):
    def read(seed):
        train = plant(icons, WORDS, sizes=(50, 5, 5), splits=('one',), seed=seed).train
        return [(np.array(o['image']).tolist(), o['label']) for o in train]
    assert read(0) == read(0) != read(1)

@pytest.mark.parametrize('change,text', [
    (dict(classes={'x': ['ant'], 'y': ['unicorn']}), "no class 'unicorn'"),
    (dict(classes={'x': ['ant'], 'y': ['ant', 'bee']}), "'ant' is in both"),
    (dict(classes={'x': ['ant']}), 'two classes'),
    (dict(share=1.2), 'share is 1.2'),
    (dict(share=.3), 'share is 0.3'),
    (dict(splits=('three',)), "no split 'three'"),
    (dict(share=.999), 'too few pictures for train'),
    (dict(classes={'x': ['ant'], 'y': []}), 'too few pictures'),
    (dict(papers=((0, 0, 0),)), 'two papers')])
def test_plant_says_what_is_wrong(icons, change, text):
    given = dict(classes=WORDS, splits=('one', 'two')) | change
    with pytest.raises(ValueError, match=text): plant(icons, **given)
