"Sources of every kind: image folders, parquet, suites and the hub; every error is one sentence. Offline."
import time

import datasets
import numpy as np
import pytest
from small_data import CATS_AND_DOGS, cache, fails, folder, load, make_suite, picture, sizes, table  # noqa: F401

from sae_ft import evaluation
from sae_ft.clip import ASSETS
from sae_ft.sources import METRIC_NAMES, find_source, read_data, read_meta, read_source


def test_the_metrics_are_the_trainers(): assert set(METRIC_NAMES) == set(evaluation.METRICS)


# --- what a string names

def test_a_source_is_found_once_and_read_from_it(tmp_path):
    "What was found stays what is read, whatever becomes of suite.json."
    source = find_source(str(make_suite(tmp_path/'s')))
    assert source.roots == [(tmp_path/'s').resolve()] and source.meta == read_meta(str(tmp_path/'s'))
    (tmp_path/'s'/'suite.json').unlink()
    assert list(read_source(source)) == ['train', 'val', 'photo', 'sketch']


def test_where_pictures_may_lie(tmp_path):
    table([0, 1]*4, feature=CATS_AND_DOGS).to_parquet(tmp_path/'a.parquet')
    assert find_source(str(tmp_path/'a.parquet')).roots == [tmp_path.resolve()]
    embedded, hub = find_source('iconshift'), find_source('someone/cats')
    assert embedded.path == ASSETS/'iconshift' and embedded.own_classes
    assert hub.path is None and hub.meta == hub.own_classes == {} and len(hub.roots) == 2


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
    kinds = {k: (o.kind, len(o.data)) for k, o in s.splits.items()}
    assert kinds == {'test': ('id', 4), 'sketch': ('near', 8)}


def test_missing_val_is_carved_from_train(tmp_path):
    for k, n in {'train': 20, 'test': 2}.items(): folder(tmp_path/k, {'cat': n, 'dog': n})
    assert sizes(load(tmp_path)) == [36, 4, 4]


def test_splits_beside_other_folders(tmp_path):
    for k in ('train', 'val'): folder(tmp_path/k, {'cat': 9, 'dog': 9})
    (tmp_path/'annotations'/'old').mkdir(parents=True)
    (tmp_path/'test').mkdir()
    picture().save(tmp_path/'test'/'1.png')
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
    for k, counts in dict(train={'b': 9, 'c': 9}, val={'b': 2}, test={'a': 2, 'c': 1}).items():
        folder(tmp_path/k, counts)
    s = load(tmp_path)
    assert s.classnames == ['a', 'b', 'c'] and s.splits['test'].data['label'][:] == [0, 0, 2]
    assert set(s.train['label'][:]) == {1, 2}


def test_nested_and_linked_and_hidden_files(tmp_path):
    root = folder(tmp_path/'data', {'cat': 4, 'dog/big': 2, 'dog/small': 3})
    folder(tmp_path/'elsewhere', {'x': 5})
    (root/'bird').symlink_to(root/'dog'/'small')
    (root/'cat'/'again').symlink_to(root)  # a loop
    (root/'.git').mkdir()
    for o in ('.DS_Store', 'notes.txt'): (root/'cat'/o).touch()
    s = load(root)
    assert s.classnames == ['bird', 'cat', 'dog'] and sum(sizes(s)) == 12  # the loop brings nothing
    (root/'fish').symlink_to(tmp_path/'elsewhere'/'x')
    assert 'a link or path that leads out' in fails(r'\d of \d+ pictures cannot be read', root)


def test_pictures_beside_the_classes_are_reported(tmp_path):
    folder(tmp_path, {'cat': 9, 'dog': 9})
    picture().save(tmp_path/'stray.png')
    with pytest.warns(UserWarning, match='1 pictures directly'): assert sum(sizes(load(tmp_path))) == 18


def test_folders_without_what_is_needed(tmp_path):
    fails('does not exist', tmp_path/'nowhere', FileNotFoundError)
    fails('does not exist', './nowhere', FileNotFoundError)
    (tmp_path/'empty').mkdir()
    fails('holds no pictures', tmp_path/'empty')
    (tmp_path/'text'/'cat').mkdir(parents=True)
    (tmp_path/'text'/'cat'/'a.txt').touch()
    fails('holds no pictures', tmp_path/'text')
    (tmp_path/'flat').mkdir()
    picture().save(tmp_path/'flat'/'a.png')
    fails('no class folders', tmp_path/'flat')
    fails(r"one class only \('cat'\)", folder(tmp_path/'one', {'cat': 9}))
    folder(tmp_path/'gone'/'train', {'cat': 9, 'dog': 9})
    (tmp_path/'gone'/'val'/'cat').mkdir(parents=True)
    fails("split 'val' is empty", tmp_path/'gone')
    (tmp_path/'a.txt').touch()
    fails('neither a folder nor a parquet file', tmp_path/'a.txt')


# --- parquet

def test_parquet_file_with_class_labels(tmp_path):
    table([0, 1]*20, feature=CATS_AND_DOGS).to_parquet(tmp_path/'mine.parquet')
    s = load(tmp_path/'mine.parquet')
    assert s.classnames == ['cat', 'dog'] and sizes(s) == [32, 4, 4] and s.name == 'mine'


def test_parquet_folder_in_the_hub_layout(tmp_path):
    (tmp_path/'data').mkdir()
    parts = {'train-00000-of-00002': 10, 'train-00001-of-00002': 6, 'validation-00000-of-00001': 4,
             'test-00000-of-00001': 2}
    for k, n in parts.items():
        table([0, 1]*n, 'fine_label', 'img', CATS_AND_DOGS).to_parquet(tmp_path/'data'/f'{k}.parquet')
    assert sizes(load(tmp_path)) == [32, 8, 4]
    assert set(read_data(str(tmp_path), 'val').column_names) == {'image', 'label'}
    with pytest.raises(ValueError, match="no split 'vla': did you mean val"): read_data(str(tmp_path), 'vla')


def test_parquet_shards_without_split_names_are_one_split(tmp_path):
    for i in range(2): table([0, 1]*10, feature=CATS_AND_DOGS).to_parquet(tmp_path/f'part-{i}.parquet')
    assert sum(sizes(load(tmp_path))) == 40


def test_parquet_with_other_columns_or_broken(tmp_path):
    table([0, 1]*5, 'kind', feature=datasets.Value('int64')).to_parquet(tmp_path/'a.parquet')
    assert 'image, kind' in fails('no label column', tmp_path/'a.parquet')
    datasets.Dataset.from_dict({'text': ['a'], 'label': [0]}).to_parquet(tmp_path/'b.parquet')
    fails('no image column: it has text, label', tmp_path/'b.parquet')
    (tmp_path/'c.parquet').touch()
    fails('cannot be read as parquet', tmp_path/'c.parquet')
    fails('does not exist', tmp_path/'d.parquet', FileNotFoundError)


def test_a_rewritten_file_is_read_again(tmp_path):
    for n in (10, 20):
        table([0, 1]*n, feature=CATS_AND_DOGS).to_parquet(tmp_path/'a.parquet')
        assert sum(sizes(load(tmp_path/'a.parquet'))) == 2*n


# --- hub

def on_the_hub(monkeypatch, **splits):
    monkeypatch.setattr(datasets, 'load_dataset', lambda spec: datasets.DatasetDict(splits))


def test_hub_id(monkeypatch):
    counts = dict(train=20, test=5, extra=3)
    on_the_hub(monkeypatch, **{k: table([0, 1]*n, 'labels', 'img', CATS_AND_DOGS) for k, n in counts.items()})
    s = load('someone/cats')
    assert s.name == 'cats' and sizes(s) == [36, 4, 10] and list(s.splits) == ['test']


def test_a_hub_split_without_labels_is_left_out(monkeypatch):
    train, test = table([0, 1]*20, feature=CATS_AND_DOGS), table([-1]*9, feature=CATS_AND_DOGS)
    on_the_hub(monkeypatch, train=train, test=test)
    with pytest.warns(UserWarning, match="split 'test' has no labels"):
        assert sizes(load('someone/cats')) == [32, 4, 4]


def test_hub_id_without_network_fails_at_once(monkeypatch):
    monkeypatch.setattr(datasets.config, 'HF_HUB_OFFLINE', True)
    start = time.time()
    fails('neither a folder or file here', 'no_such_folder')
    assert time.time() - start < 3
