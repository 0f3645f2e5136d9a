"Answers, metrics and the tables of one run, by hand and against scikit-learn."
from dataclasses import replace
from types import SimpleNamespace

import datasets
import paper_data
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn

from sae_ft import evaluation
from sae_ft.clip import Classifier
from sae_ft.evaluation import answer, answer_splits, embed_on_disk, embed_splits, judge, means
from sae_ft.evaluation import on_same_pictures, plot_shift, score, table, worst_region
from sae_ft.screening import BadPictures
from sae_ft.screening_later import look_later
from sae_ft.settings import Config
from sae_ft.sources_layouts import class_folders

def result(kind, value, n=10, metric='accuracy'): return dict(kind=kind, metric=metric, value=value, n=n)

def test_metrics_are_those_of_scikit_learn():
    g = torch.Generator().manual_seed(0)
    found, y = torch.randint(5, (80,), generator=g), torch.randint(5, (80,), generator=g)
    assert score(found, y, 5) == pytest.approx(accuracy_score(y, found), abs=1e-6)
    assert score(found, y, 5, 'macro-F1') == pytest.approx(f1_score(y, found, average='macro'), abs=1e-6)
    with pytest.raises(ValueError, match="unknown metric 'macro-F2': did you mean macro-F1"):
        score(found, y, 5, 'macro-F2')

def suite(**own):
    "Two splits: one with the suite's three classes, one with two of its own."
    kinds = dict(same='id', other='transfer')
    plain = dict(metric='accuracy', counts_as=None)
    splits = {k: SimpleNamespace(kind=v, classnames=own.get(k), **plain) for k, v in kinds.items()}
    return SimpleNamespace(classnames=['a', 'b', 'c'], splits=splits)

def test_a_split_of_other_classes_is_answered_by_its_own_head_or_not_at_all():
    model = Classifier(nn.Identity(), torch.eye(3))
    z, y = torch.tensor([[3., 1, 2], [1., 2, 3]]), torch.tensor([0, 1])
    embedded, mine = dict(same=(z, y), other=(z, y)), suite(other=['x', 'y'])
    assert set(answer_splits(model, mine, embedded)) == {'same'}
    head = torch.tensor([[1., 0, 0], [0, 1., 0]])  # of x and y: c, the largest of picture 1, is none of them
    answers = answer_splits(model, mine, embedded, dict(other=head))
    assert answers['same'].tolist() == [0, 2] and answers['other'].tolist() == [0, 1]
    judged = judge(mine, embedded, answers)
    assert judged['same'] == result('id', .5, 2) and judged['other'] == result('transfer', 1., 2)
    assert torch.equal(answer(model, z, head), answers['other'])

def test_an_answer_outside_of_the_classes_of_a_split_cannot_be_given():
    "By hand: five classes, of which a split has 1, 3 and 4, and 4 counts as 1."
    model, mask = Classifier(nn.Identity(), torch.eye(5)), {1: 1, 3: 3, 4: 1}
    z = torch.tensor([[9., 2, 8, 1, 0],   # 0 is the largest, then 2, both outside: 1
                      [9., 0, 8, 2, 1],   # 3
                      [0., 1, 9, 2, 3],   # 4, which counts as 1
                      [9., -3, 9, -1, -2]])  # all that may be answered are negative: 3
    assert answer(model, z).tolist() == [0, 0, 2, 0]
    assert answer(model, z, counts_as=mask).tolist() == [1, 3, 1, 3]
    split = SimpleNamespace(kind='far', metric='accuracy', classnames=None, counts_as=mask)
    whole, y = SimpleNamespace(classnames=list('abcde'), splits=dict(r=split)), torch.tensor([1, 3, 1, 1])
    embedded = dict(r=(z, y))
    judged = judge(whole, embedded, answer_splits(model, whole, embedded))
    assert judged['r'] == result('far', .75, 4)
    split.counts_as = None
    assert judge(whole, embedded, answer_splits(model, whole, embedded))['r']['value'] == 0

def test_answers_in_parts_are_the_answers(monkeypatch):
    torch.manual_seed(0)
    model, z, head = Classifier(nn.Identity(), torch.randn(5, 3)), torch.randn(50, 3), torch.randn(4, 3)
    ways = dict(W=None), dict(W=head), dict(counts_as={1: 1, 4: 0})
    whole = [answer(model, z, **o) for o in ways]
    monkeypatch.setattr(evaluation, 'AT_ONCE', 35)  # 7 pictures of 5 classes
    assert all(torch.equal(answer(model, z, **o), want) for o, want in zip(ways, whole))
    assert answer(model, z[:0]).shape == (0,)

def test_averages_over_the_classes_that_occur():
    "Class 3 is answered and never right; WILDS leaves it out, macro-F1 does not."
    y, found = torch.tensor([0, 0, 0, 1, 2]), torch.tensor([0, 0, 3, 1, 1])
    assert score(found, y, 5, 'mean per-class accuracy') == pytest.approx((2/3 + 1 + 0)/3)
    f1 = 2*2/(2 + 3), 2*1/(2 + 1), 0.  # 2 right, over answered and labelled
    assert score(found, y, 5, 'macro-F1 (WILDS)') == pytest.approx(sum(f1)/3)
    assert score(found, y, 5, 'macro-F1') == pytest.approx(sum(f1)/4)

def test_the_worst_region_is_judged_with_its_own_count():
    regions = ['Asia', 'Africa', 'Asia', 'Africa', 'Other', 'Africa']
    y, found = torch.tensor([0, 1, 2, 1, -1 - 4, 2]), torch.tensor([0, 1, 2, 0, 1, 1])
    data = datasets.Dataset.from_dict(dict(region=regions))
    split = SimpleNamespace(kind='far', metric='worst-region accuracy', classnames=None, counts_as=None,
                            data=data)
    whole = SimpleNamespace(classnames=list('abc'), splits=dict(w=split))
    judged = judge(whole, dict(w=(None, y)), dict(w=found))['w']
    assert judged == result('far', pytest.approx(1/3), 3, 'worst-region accuracy') | dict(region='Africa')
    right = torch.tensor([True, False])
    assert worst_region(right, ['Asia', 'Other'])[0] == 'Asia'
    with pytest.raises(ValueError, match='needs a column region'): worst_region(right, ['Other', 'Other'])

def test_a_picture_that_cannot_be_read_is_not_counted():
    mine = suite()
    y, found = torch.tensor([0, -1 - 1, 2]), torch.tensor([0, 0, 1])
    assert judge(mine, dict(same=(None, y)), dict(same=found))['same'] == result('id', .5, 2)

# --- embeddings that stay on disk

@pytest.fixture
def many(tmp_path):
    "A tiny model, and 600 pictures that are opened when used."
    paper_data.classes(tmp_path/'pictures', ['a', 'b', 'c'], 200)
    model = Classifier(Pooled(), torch.eye(3))
    return model, look_later(dict(train=class_folders(tmp_path/'pictures')))[0]['train'], tmp_path

class Pooled(nn.Module):
    "A tower of 32 pixels: mean colours, as 3 numbers."
    preprocess_cfg = dict(size=32, mean=[.5]*3, std=[.5]*3)
    def forward(self, x): return x.mean((2, 3))

HOW = Config(device='cpu', precision='fp32', batch_size=100)
def on_disk(model, ds, folder, **other):
    return embed_on_disk(model, ds, 'train', replace(HOW, **other), False, folder/'z', dict(of='this'), 256)

def test_on_disk_they_have_the_same_bits(many):
    model, ds, folder = many
    z, y = embed_splits(model, dict(train=ds), HOW, False)['train']
    blocks, every = on_disk(model, ds, folder), torch.arange(600)
    assert len(blocks.starts) == 3 and len(z) == 600
    assert torch.equal(blocks.take('z', every), z) and torch.equal(blocks.take('y', every), y)
    blocks.file(256).unlink()
    seen, encode = [], model.encode
    model.encode = lambda x: seen.append(len(x)) or encode(x)
    assert on_disk(model, ds, folder).digest() == blocks.digest() and seen == [256]

def test_on_disk_a_picture_that_cannot_be_read_is_told_and_has_no_row(many):
    model, ds, folder = many
    files = [folder/'pictures'/c/f'{c}_{i}.JPEG' for c, i in (('a', 3), ('c', 199))]
    for o in files: o.write_bytes(o.read_bytes()[:-400])
    with pytest.raises(BadPictures, match=r'2 of 600 .*a/a_3.JPEG \(truncated\), c/c_199'):
        on_disk(model, ds, folder)
    with pytest.warns(UserWarning, match="2 of 600 pictures of 'train' cannot be read"):
        blocks = on_disk(model, ds, folder, on_bad_image='skip')
        z, y = embed_splits(model, dict(train=ds), replace(HOW, on_bad_image='skip'), False)['train']
    every = torch.arange(598)
    assert len(blocks) == 598 and torch.equal(blocks.take('z', every), z[y >= 0])
    assert torch.equal(blocks.take('y', every), y[y >= 0])

BEFORE = dict(line=result('id', .8), solid=result('near', .6), game=result('far', .4, 30),
              hand=result('far', .2))
AFTER = dict(line=result('id', .9), solid=result('near', .7), game=result('far', .3, 30),
             hand=result('far', .2))

def test_every_split_counts_the_same_in_a_mean():
    assert means(BEFORE) == pytest.approx(dict(id=.8, near=.6, far=.3))
    shown = table(BEFORE, AFTER)
    assert list(shown.index) == ['line', 'solid', 'game', 'hand', 'mean of near', 'mean of far']
    assert shown.loc['mean of far'].to_dict() == {
        'kind': 'far', 'metric': 'accuracy', 'pictures': 40, 'zero-shot %': 30., 'tuned %': 25.,
        'change': -5.}
    assert 'tuned %' not in table(BEFORE)

def test_the_figure_names_every_shifted_split_and_the_metric():
    ax, = plot_shift(BEFORE, AFTER).axes
    names = [o.get_text() for o in ax.texts]
    assert sorted(names) == ['game', 'hand', 'mean of far', 'solid'] and 'accuracy' in ax.get_xlabel()
    only = dict(line=result('id', .8))
    assert 'name one with suite' in plot_shift(only, only).axes[0].texts[0].get_text()

def test_answers_are_set_side_by_side_only_on_the_same_pictures():
    "Splits may come in another order, pictures of a split may not; region and drawing tell them apart too."
    a = pd.DataFrame(dict(split=['x', 'x', 'y'], label=[0, 1, 2], drawing=[0, 1, 0], region='Asia', said=1))
    b = a.iloc[[2, 0, 1]].assign(said=2)
    first, second = on_same_pictures([a, b], ['a', 'b'])
    assert first.equals(a) and second.equals(a.assign(said=2))
    others = [a[:2], a.assign(region='Africa'), a.assign(drawing=0), a.iloc[[1, 0, 2]]]
    for other in [*others, a.drop(columns='region')]:
        with pytest.raises(ValueError, match="'c' was judged on other pictures than 'a': compare runs of"):
            on_same_pictures([a, b, other], ['a', 'b', 'c'])
