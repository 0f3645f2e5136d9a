"Suites: one's own and the embedded ones, splits of another, classes of their own, and the same choice."
import json
import time
import warnings
from collections import Counter

import datasets
import numpy as np
from small_data import cache, fails, folder, load, make_suite, sizes  # noqa: F401

from sae_ft.clip import ASSETS
from sae_ft.data import Images, show_pictures, undecoded
from sae_ft.suites import classnames_of, drawings, load_suite


# --- choice

def test_carving_never_takes_the_last_picture_of_a_class(tmp_path):
    s = load(folder(tmp_path, {'a': 50, 'b': 1, 'c': 2}))
    assert set(s.train['label'][:]) == {0, 1, 2}


def test_seed_and_limit(tmp_path):
    def paths(ds): return [r['image']['path'] for r in undecoded(ds)]
    root = folder(tmp_path, {'cat': 40, 'dog': 20})
    a, b, c = load(root, seed=1), load(root, seed=1), load(root, seed=2)
    assert paths(a.val) == paths(b.val) != paths(c.val)
    everything = [*paths(a.train), *paths(a.val), *paths(a.splits['test'].data)]
    assert len(everything) == len(set(everything)) == 60
    small = load(root, limit=12)
    assert sizes(small) == [12, 6, 6] and np.bincount(small.train['label'][:]).tolist() == [8, 4]
    fails('limit is 0', root, limit=0)


# --- suites

def test_a_suite_of_ones_own(tmp_path):
    s = load(make_suite(tmp_path/'s'))
    assert s.name == 'ours' and s.templates == ['a {}.']
    assert {k: v.kind for k, v in s.splits.items()} == {'photo': 'id', 'sketch': 'far'}
    (tmp_path/'s'/'sketch.parquet').unlink()
    fails('is needed but does not exist', tmp_path/'s', FileNotFoundError)
    (tmp_path/'s'/'suite.json').write_text('{')
    fails('not valid JSON', tmp_path/'s')


def test_evaluation_splits_of_another_suite(tmp_path):
    own, other = folder(tmp_path/'own', {'cat': 30, 'dog': 30}), make_suite(tmp_path/'s', ('dog', 'cat'))
    s = load(own, suite=str(other))
    assert {k: o.kind for k, o in s.splits.items()} == {'test': 'id', 'photo': 'id', 'sketch': 'far'}
    assert list(s.splits) == ['test', 'photo', 'sketch']
    sketch = s.splits['sketch'].data
    assert sketch['label'][:] == [1, 0]*6  # renumbered by name
    assert sketch.features['label'].names == ['cat', 'dog']
    assert len(Images(sketch, lambda im: im)) == 12
    boats = make_suite(tmp_path/'t', ('dog', 'boat'))
    fails("has the class 'boat', which the training data has not", own, suite=str(boats))


def test_a_split_with_classes_of_its_own(tmp_path):
    make_suite(tmp_path/'s')
    make_suite(tmp_path/'t', ('moon', 'sun'))
    (tmp_path/'t'/'sketch.parquet').rename(tmp_path/'s'/'sky.parquet')
    file = tmp_path/'s'/'suite.json'
    meta = json.loads(file.read_text())
    meta['splits']['sky'] = dict(kind='transfer', metric='accuracy', classnames=['the moon', 'the sun'])
    file.write_text(json.dumps(meta))
    s = load(tmp_path/'s')
    assert s.splits['sky'].classnames == ['the moon', 'the sun']
    assert s.splits['photo'].classnames is None and 'moon' not in s.classnames
    assert classnames_of(s, 'sky') == ['the moon', 'the sun'] and classnames_of(s, 'photo') == s.classnames
    own = folder(tmp_path/'own', {'cat': 30, 'dog': 30})
    assert load(own, suite=str(tmp_path/'s')).splits['sky'].classnames == ['the moon', 'the sun']
    meta['splits']['sky']['classnames'] = ['the moon']
    file.write_text(json.dumps(meta))
    fails('1 class names were given, but the data has 2 classes', tmp_path/'s')


def test_iconwild_is_whole():
    s = load('iconwild')
    assert s.name == 'iconwild'
    assert {k: (v.kind, v.metric) for k, v in s.splits.items()} == {
        'id-test': ('id', 'macro-F1'), 'ood-test': ('far', 'macro-F1')}
    every = set(range(len(s.classnames)))
    assert all(set(o['label'][:]) == every for o in [s.train, *(v.data for v in s.splits.values())])
    counts = sorted(Counter(s.train['label'][:]).values())
    assert counts[-1] >= 5*counts[0]  # a long tail


def test_embedded_suite_is_whole_and_fast():
    start = time.time()
    s = load('iconshift')
    assert time.time() - start < 30
    assert s.name == 'iconshift' and len(s.splits) >= 8
    assert {'id', 'near', 'far', 'transfer'} == {o.kind for o in s.splits.values()}
    assert s.train.features['label'].names == s.classnames and not s.skipped
    meta = json.loads((ASSETS/'iconshift'/'suite.json').read_text())
    assert list(s.splits) == list(meta['splits']) and s.templates == meta['templates']
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert show_pictures(s.train, 5, cols=3).axes[0].texts[0].get_text() in s.classnames


def test_drawings_are_families_of_a_class():
    columns = dict(family=['a', 'b', 'a', 'a', 'b'], label=[0, 0, 1, 0, 0])
    ds = datasets.Dataset.from_dict(columns)
    assert drawings(ds).tolist() == [0, 1, 2, 0, 1]
    assert drawings(ds.remove_columns('family')).tolist() == [0, 1, 2, 3, 4]
    s = load_suite(progress=False)
    line = s.splits['line'].data
    pairs = set(zip(line['family'][:], line['label'][:]))
    assert drawings(line).max() + 1 == len(pairs) < len(line)
    assert f"| {len(pairs):,} | {len(set(line['family'][:]))} | accuracy |" in s._repr_markdown_()
