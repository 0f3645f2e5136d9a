"Data sets of every kind, whole and broken; every error is one sentence. Offline, on tiny pictures."
import json
from collections import Counter
import time
import warnings

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings, strategies as st

from sae_ft import data as D
from sae_ft.clip import ASSETS
from sae_ft.plumbing.pictures import to_rgb


@pytest.fixture(autouse=True, scope='module')
def cache(tmp_path_factory):
    "Parquet is cached here, not in the user's folder."
    was, datasets.config.HF_DATASETS_CACHE = datasets.config.HF_DATASETS_CACHE, tmp_path_factory.mktemp('cache')
    yield
    datasets.config.HF_DATASETS_CACHE = was


def picture(colour=(9, 9, 9), mode='RGB'): return PIL.Image.new(mode, (8, 8), colour)


def folder(root, counts, ending='.png'):
    for c, n in counts.items():
        (root/c).mkdir(parents=True, exist_ok=True)
        for i in range(n): picture((i % 256, 5, 5)).save(root/c/f'{i:03}{ending}')
    return root


def table(labels, label='label', image='image', feature=None):
    feats = datasets.Features({image: datasets.Image(), label: feature or datasets.Value('int64')})
    return datasets.Dataset.from_dict({image: [picture((i % 256, 0, 0)) for i in range(len(labels))], label: labels}, features=feats)


def load(spec, **kw): return D.load_suite(str(spec), progress=False, **kw)


def sizes(suite): return [len(suite.train), len(suite.val), *(len(s.data) for s in suite.splits.values())]


def fails(says, spec, error=ValueError, **kw):
    with pytest.raises(error, match=says) as e: load(spec, **kw)
    text = str(e.value)
    assert '\n' not in text and len(text) < 700, text
    return text


# --- image folders

def test_classes_only(tmp_path):
    s = load(folder(tmp_path, {'cat': 40, 'sea_lion': 20}))
    assert s.classnames == ['cat', 'sea lion'] and sizes(s) == [48, 6, 6] and s.splits['test'].kind == 'id'
    assert s.train.features['label'].names == ['cat', 'sea_lion'] and len(s.templates) == 7
    assert np.bincount(s.val['label'][:]).tolist() == [4, 2]


@pytest.mark.parametrize('train,val', [('train', 'val'), ('Train', 'validation'), ('training', 'valid')])
def test_split_folders(tmp_path, train, val):
    for k, n in {train: 9, val: 3, 'test': 2, 'sketch': 4}.items(): folder(tmp_path/k, {'cat': n, 'dog': n})
    s = load(tmp_path)
    assert sizes(s) == [18, 6, 8, 4] or sizes(s) == [18, 6, 4, 8]
    assert {k: (o.kind, len(o.data)) for k, o in s.splits.items()} == {'test': ('id', 4), 'sketch': ('near', 8)}


def test_missing_val_is_carved_from_train(tmp_path):
    for k, n in {'train': 20, 'test': 2}.items(): folder(tmp_path/k, {'cat': n, 'dog': n})
    assert sizes(load(tmp_path)) == [36, 4, 4]


def test_splits_beside_other_folders(tmp_path):
    for k in ('train', 'val'): folder(tmp_path/k, {'cat': 9, 'dog': 9})
    (tmp_path/'annotations'/'old').mkdir(parents=True); (tmp_path/'test').mkdir(); picture().save(tmp_path/'test'/'1.png')
    with pytest.warns(UserWarning, match='test have pictures but no class folders'): s = load(tmp_path)
    assert s.classnames == ['cat', 'dog'] and sizes(s) == [16, 18, 2]


def test_a_class_called_train_may_have_folders(tmp_path):
    s = load(folder(tmp_path, {'train/steam': 9, 'train/diesel': 9, 'car': 9}))
    assert s.classnames == ['car', 'train'] and sum(sizes(s)) == 27


@pytest.mark.parametrize('words', [('train', 'car'), ('test', 'train', 'val'), ('dev', 'boat')])
def test_classes_may_be_called_like_splits(tmp_path, words):
    s = load(folder(tmp_path, {w: 10 for w in words}))
    assert s.classnames == sorted(words) and sum(sizes(s)) == 10*len(words)


def test_a_class_that_only_test_has_keeps_its_number(tmp_path):
    folder(tmp_path/'train', {'b': 9, 'c': 9}); folder(tmp_path/'val', {'b': 2}); folder(tmp_path/'test', {'a': 2, 'c': 1})
    s = load(tmp_path)
    assert s.classnames == ['a', 'b', 'c'] and s.splits['test'].data['label'][:] == [0, 0, 2] and set(s.train['label'][:]) == {1, 2}


def test_nested_and_linked_and_hidden_files(tmp_path):
    folder(tmp_path/'data', {'cat': 4, 'dog/big': 2, 'dog/small': 3}); folder(tmp_path/'elsewhere', {'x': 5})
    (tmp_path/'data'/'bird').symlink_to(tmp_path/'data'/'dog'/'small'); (tmp_path/'data'/'cat'/'again').symlink_to(tmp_path/'data')  # a loop
    (tmp_path/'data'/'.git').mkdir(); (tmp_path/'data'/'cat'/'.DS_Store').touch(); (tmp_path/'data'/'cat'/'notes.txt').touch()
    s = load(tmp_path/'data')
    assert s.classnames == ['bird', 'cat', 'dog'] and sum(sizes(s)) == 12  # the loop brings nothing
    (tmp_path/'data'/'fish').symlink_to(tmp_path/'elsewhere'/'x')
    assert 'a link or path that leads out' in fails(r'\d of \d+ pictures cannot be read', tmp_path/'data')


def test_pictures_beside_the_classes_are_reported(tmp_path):
    folder(tmp_path, {'cat': 9, 'dog': 9}); picture().save(tmp_path/'stray.png')
    with pytest.warns(UserWarning, match='1 pictures directly'): assert sum(sizes(load(tmp_path))) == 18


def test_folders_without_what_is_needed(tmp_path):
    fails('does not exist', tmp_path/'nowhere', FileNotFoundError)
    fails('does not exist', './nowhere', FileNotFoundError)
    (tmp_path/'empty').mkdir(); fails('holds no pictures', tmp_path/'empty')
    (tmp_path/'text'/'cat').mkdir(parents=True); (tmp_path/'text'/'cat'/'a.txt').touch(); fails('holds no pictures', tmp_path/'text')
    (tmp_path/'flat').mkdir(); picture().save(tmp_path/'flat'/'a.png'); fails('no class folders', tmp_path/'flat')
    fails(r"one class only \('cat'\)", folder(tmp_path/'one', {'cat': 9}))
    folder(tmp_path/'gone'/'train', {'cat': 9, 'dog': 9}); (tmp_path/'gone'/'val'/'cat').mkdir(parents=True); fails("split 'val' is empty", tmp_path/'gone')
    (tmp_path/'a.txt').touch(); fails('neither a folder nor a parquet file', tmp_path/'a.txt')


# --- class names

def test_class_names_given(tmp_path):
    root = folder(tmp_path/'data', {'n01': 9, 'n02': 9})
    (tmp_path/'list.json').write_text('["cat", "dog"]'); (tmp_path/'map.json').write_text('{"n02": "dog", "n01": "cat"}')
    for given_ in (['cat', 'dog'], {'n02': 'dog', 'n01': 'cat'}, str(tmp_path/'list.json'), tmp_path/'map.json'):
        assert load(root, classnames=given_).classnames == ['cat', 'dog']
    for t in (['a {}.'], 'a {}.'): assert load(root, templates=t).templates == ['a {}.']
    fails('3 class names were given, but the data has 2 classes', root, classnames=['a', 'b', 'c'])
    fails("no entry for 'n02'", root, classnames={'n01': 'cat'})
    fails('does not exist', root, FileNotFoundError, classnames=str(tmp_path/'no.json'))
    (tmp_path/'bad.json').write_text('["cat"'); fails('not valid JSON', root, classnames=str(tmp_path/'bad.json'))


# --- parquet

def test_parquet_file_with_class_labels(tmp_path):
    table([0, 1]*20, feature=datasets.ClassLabel(names=['cat', 'dog'])).to_parquet(tmp_path/'mine.parquet')
    s = load(tmp_path/'mine.parquet')
    assert s.classnames == ['cat', 'dog'] and sizes(s) == [32, 4, 4] and s.name == 'mine'


def test_parquet_folder_in_the_hub_layout(tmp_path):
    (tmp_path/'data').mkdir()
    for k, n in {'train-00000-of-00002': 10, 'train-00001-of-00002': 6, 'validation-00000-of-00001': 4, 'test-00000-of-00001': 2}.items():
        table([0, 1]*n, 'fine_label', 'img', datasets.ClassLabel(names=['cat', 'dog'])).to_parquet(tmp_path/'data'/f'{k}.parquet')
    assert sizes(load(tmp_path)) == [32, 8, 4]
    assert set(D.read_data(str(tmp_path), 'val').column_names) == {'image', 'label'}
    with pytest.raises(ValueError, match="no split 'vla': did you mean val"): D.read_data(str(tmp_path), 'vla')


def test_parquet_shards_without_split_names_are_one_split(tmp_path):
    for i in range(2): table([0, 1]*10, feature=datasets.ClassLabel(names=['cat', 'dog'])).to_parquet(tmp_path/f'part-{i}.parquet')
    assert sum(sizes(load(tmp_path))) == 40


def test_labels_as_words_and_as_numbers(tmp_path):
    table(['dog', 'cat']*10, feature=datasets.Value('string')).to_parquet(tmp_path/'words.parquet')
    table([0, 1]*10).to_parquet(tmp_path/'numbers.parquet')
    assert load(tmp_path/'words.parquet').classnames == ['cat', 'dog']
    fails('numbers without names', tmp_path/'numbers.parquet')
    for names in (['cat', 'dog'], {0: 'cat', '1': 'dog'}): assert load(tmp_path/'numbers.parquet', classnames=names).classnames == ['cat', 'dog']
    fails("no entry for '1'", tmp_path/'numbers.parquet', classnames={0: 'cat', 2: 'dog'})


@pytest.mark.parametrize('labels,says', [([0, 1, None]*5, r'5 of 15 labels .* row 2 \(None\)'), ([0, 1, -1]*5, r'row 2 \(-1\)'), ([0, 1, 7]*5, r'from 0 to 1: first in row 2 \(7\)')])
def test_labels_missing_or_out_of_range(tmp_path, labels, says):
    table(labels).to_parquet(tmp_path/'a.parquet')
    fails(says, tmp_path/'a.parquet', classnames=['cat', 'dog'])


def test_parquet_with_other_columns_or_broken(tmp_path):
    table([0, 1]*5, 'kind', feature=datasets.Value('int64')).to_parquet(tmp_path/'a.parquet')
    assert 'image, kind' in fails('no label column', tmp_path/'a.parquet')
    datasets.Dataset.from_dict({'text': ['a'], 'label': [0]}).to_parquet(tmp_path/'b.parquet'); fails('no image column: it has text, label', tmp_path/'b.parquet')
    (tmp_path/'c.parquet').touch(); fails('cannot be read as parquet', tmp_path/'c.parquet')
    fails('does not exist', tmp_path/'d.parquet', FileNotFoundError)


def test_a_rewritten_file_is_read_again(tmp_path):
    for n in (10, 20):
        table([0, 1]*n, feature=datasets.ClassLabel(names=['cat', 'dog'])).to_parquet(tmp_path/'a.parquet')
        assert sum(sizes(load(tmp_path/'a.parquet'))) == 2*n


# --- hub

def test_hub_id(monkeypatch):
    splits = {k: table([0, 1]*n, 'labels', 'img', datasets.ClassLabel(names=['cat', 'dog'])) for k, n in dict(train=20, test=5, extra=3).items()}
    monkeypatch.setattr(datasets, 'load_dataset', lambda spec: datasets.DatasetDict(splits))
    s = load('someone/cats')
    assert s.name == 'cats' and sizes(s) == [36, 4, 10] and list(s.splits) == ['test']


def test_a_hub_split_without_labels_is_left_out(monkeypatch):
    f = datasets.ClassLabel(names=['cat', 'dog'])
    monkeypatch.setattr(datasets, 'load_dataset', lambda spec: datasets.DatasetDict(train=table([0, 1]*20, feature=f), test=table([-1]*9, feature=f)))
    with pytest.warns(UserWarning, match="split 'test' has no labels"): assert sizes(load('someone/cats')) == [32, 4, 4]


def test_hub_id_without_network_fails_at_once(monkeypatch):
    monkeypatch.setattr(datasets.config, 'HF_HUB_OFFLINE', True)
    start = time.time()
    fails('neither a folder or file here', 'no_such_folder')
    assert time.time() - start < 3


# --- pictures

MODES = dict(RGBA=(0, 0, 0, 0), LA=(0, 0), P=0, L=255, CMYK=(0, 0, 0, 0), F=255., I=65535)
MODES['1'] = 1


@pytest.mark.parametrize('mode', MODES)
def test_every_mode_becomes_rgb(mode):
    im = picture(MODES[mode], mode)
    if mode == 'P': im.putpalette([0, 0, 0]*256); im.info['transparency'] = 0
    out = to_rgb(im)
    assert out.mode == 'RGB' and out.getpixel((3, 3)) == (255, 255, 255)


def test_16_bit_and_orientation(tmp_path):
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    PIL.Image.fromarray(grey).save(tmp_path/'deep.png')
    out = np.asarray(D.decode({'bytes': (tmp_path/'deep.png').read_bytes(), 'path': None}))[..., 0]
    assert abs(out.astype(float) - grey/257).max() <= 1
    im, exif = PIL.Image.new('RGB', (8, 4)), PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was on its side
    im.save(tmp_path/'side.jpg', exif=exif)
    assert D.decode({'bytes': None, 'path': str(tmp_path/'side.jpg')}).size == (4, 8)


def broken_folder(root):
    folder(root, {'cat': 20, 'dog': 20})
    whole = (root/'cat'/'001.png').read_bytes()
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(root/'cat'/'002.jpg')
    (root/'cat'/'002.jpg').write_bytes((root/'cat'/'002.jpg').read_bytes()[:900])  # truncated
    (root/'cat'/'003.png').write_bytes(b'')                                        # zero bytes
    (root/'dog'/'004.png').write_bytes(b'<html>404</html>')                        # not a picture
    (root/'dog'/'005.png').write_bytes(whole[:40] + bytes(20))                     # damaged
    return root


def test_broken_pictures_refused_or_skipped(tmp_path):
    root = broken_folder(tmp_path)
    assert '004.png (' in fails('4 of 41 pictures cannot be read', root)
    s = load(root, on_bad_image='skip')
    assert sum(sizes(s)) == 37 and '4 broken pictures left out' in s._repr_markdown_()
    assert sorted(o.split(' (')[0][-7:] for o in sum(s.skipped.values(), [])) == ['002.jpg', '003.png', '004.png', '005.png']
    for ds in (s.train, s.val, s.splits['test'].data):
        for x, y in D.Images(ds, lambda im: torch.tensor(im.size)): assert y in (0, 1)
    fails("unknown on_bad_image 'drop': known are refuse, skip", root, on_bad_image='drop')


def test_broken_and_absent_pictures_in_parquet_are_named_by_row(tmp_path):
    rows = [{'bytes': b'oops', 'path': None}, None] + [{'bytes': open(p, 'rb').read(), 'path': None} for p in sorted((folder(tmp_path/'f', {'cat': 18})/'cat').glob('*'))]
    feats = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=['cat', 'dog']))
    datasets.Dataset.from_dict(dict(image=rows, label=[0, 1]*(len(rows)//2)), features=feats).to_parquet(tmp_path/'a.parquet')
    assert "row " in fails('2 of .* cannot be read', tmp_path/'a.parquet')


# --- choice

@given(st.lists(st.integers(0, 6), min_size=1, max_size=120), st.integers(0, 150), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_stratified(labels, n, seed):
    rows = D.stratified(labels, n, seed)
    assert len(set(rows)) == len(rows) == min(n, len(labels)) and list(rows) == sorted(rows)
    assert list(rows) == list(D.stratified(labels, n, seed))
    y, share = np.array(labels), min(n, len(labels))/len(labels)
    assert all(abs((y[rows] == c).sum() - share*(y == c).sum()) <= 3.5 for c in set(labels))


def test_carving_never_takes_the_last_picture_of_a_class(tmp_path):
    s = load(folder(tmp_path, {'a': 50, 'b': 1, 'c': 2}))
    assert set(s.train['label'][:]) == {0, 1, 2}


def test_seed_and_limit(tmp_path):
    root = folder(tmp_path, {'cat': 40, 'dog': 20})
    paths = lambda ds: [r['image']['path'] for r in D._raw(ds)]
    a, b, c = load(root, seed=1), load(root, seed=1), load(root, seed=2)
    assert paths(a.val) == paths(b.val) != paths(c.val)
    everything = [*paths(a.train), *paths(a.val), *paths(a.splits['test'].data)]
    assert len(everything) == len(set(everything)) == 60
    small = load(root, limit=12)
    assert sizes(small) == [12, 6, 6] and np.bincount(small.train['label'][:]).tolist() == [8, 4]
    fails('limit is 0', root, limit=0)


# --- suites

def make_suite(root, names=('cat', 'dog'), splits={'photo': 'id', 'sketch': 'far'}):
    root.mkdir()
    for k in ('train', 'val', *splits, 'index'): table([0, 1]*6, feature=datasets.ClassLabel(names=list(names))).to_parquet(root/f'{k}.parquet')
    (root/'suite.json').write_text(json.dumps(dict(name='ours', classnames=list(names), templates=['a {}.'], train='train', val='val',
                                                   splits={k: dict(kind=v, metric='accuracy') for k, v in splits.items()})))
    return root


def test_a_suite_of_ones_own(tmp_path):
    s = load(make_suite(tmp_path/'s'))
    assert s.name == 'ours' and s.templates == ['a {}.'] and {k: v.kind for k, v in s.splits.items()} == {'photo': 'id', 'sketch': 'far'}
    (tmp_path/'s'/'sketch.parquet').unlink(); fails('is needed but does not exist', tmp_path/'s', FileNotFoundError)
    (tmp_path/'s'/'suite.json').write_text('{'); fails('not valid JSON', tmp_path/'s')


def test_evaluation_splits_of_another_suite(tmp_path):
    own, other = folder(tmp_path/'own', {'cat': 30, 'dog': 30}), make_suite(tmp_path/'s', ('dog', 'cat'))
    s = load(own, suite=str(other))
    assert list(s.splits) == ['test', 'photo', 'sketch'] and s.splits['sketch'].kind == 'far' and s.splits['test'].kind == 'id'
    assert s.splits['sketch'].data['label'][:] == [1, 0]*6 and s.splits['sketch'].data.features['label'].names == ['cat', 'dog']  # renumbered by name
    assert len(D.Images(s.splits['sketch'].data, lambda im: im)) == 12
    fails("has the class 'boat', which the training data has not", own, suite=str(make_suite(tmp_path/'t', ('dog', 'boat'))))


def test_a_split_with_classes_of_its_own(tmp_path):
    make_suite(tmp_path/'s')
    make_suite(tmp_path/'t', ('moon', 'sun'))
    (tmp_path/'t'/'sketch.parquet').rename(tmp_path/'s'/'sky.parquet')
    meta = json.loads((tmp_path/'s'/'suite.json').read_text())
    meta['splits']['sky'] = dict(kind='transfer', metric='accuracy', classnames=['the moon', 'the sun'])
    (tmp_path/'s'/'suite.json').write_text(json.dumps(meta))
    s = load(tmp_path/'s')
    assert s.splits['sky'].classnames == ['the moon', 'the sun'] and s.splits['photo'].classnames is None and 'moon' not in s.classnames
    own = folder(tmp_path/'own', {'cat': 30, 'dog': 30})
    assert load(own, suite=str(tmp_path/'s')).splits['sky'].classnames == ['the moon', 'the sun']
    meta['splits']['sky']['classnames'] = ['the moon']
    (tmp_path/'s'/'suite.json').write_text(json.dumps(meta))
    fails('1 class names were given, but the data has 2 classes', tmp_path/'s')


def test_iconwild_is_whole():
    s = load('iconwild')
    assert s.name == 'iconwild' and {k: (v.kind, v.metric) for k, v in s.splits.items()} == {'id-test': ('id', 'macro-F1'), 'ood-test': ('far', 'macro-F1')}
    assert all(set(o['label'][:]) == set(range(len(s.classnames))) for o in [s.train, *(v.data for v in s.splits.values())])
    sizes = sorted(Counter(s.train['label'][:]).values())
    assert sizes[-1] >= 5*sizes[0]  # a long tail


def test_embedded_suite_is_whole_and_fast():
    start = time.time()
    s = load('iconshift')
    assert time.time() - start < 30
    assert s.name == 'iconshift' and len(s.splits) >= 8 and {'id', 'near', 'far', 'transfer'} == {o.kind for o in s.splits.values()}
    assert s.train.features['label'].names == s.classnames and not s.skipped
    meta = json.loads((ASSETS/'iconshift'/'suite.json').read_text())
    assert list(s.splits) == list(meta['splits']) and s.templates == meta['templates']
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert D.show_pictures(s.train, 5, cols=3).axes[0].get_title() in s.classnames
