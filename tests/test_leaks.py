"About the embedded assets: pre-training read no picture of a split, proved on the shipped index."
import io
import json
from functools import lru_cache
from pathlib import Path

import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import sae_ft

FOLDER = Path(sae_ft.__file__).parent/'assets'/'iconshift'
SUITE = json.loads((FOLDER/'suite.json').read_text())
WILD = FOLDER.parent/'iconwild'
WILD_SPLITS = [f'wild/{o}' for o in ('train', 'val', 'id-test', 'ood-test')]
TRANSFER = [k for k, o in SUITE['splits'].items() if o['kind'] == 'transfer']
TESTS = [k for k in SUITE['splits'] if k not in TRANSFER]
SPLITS = ['train', 'val', *TESTS]
HELD_OUT = ['line-new', 'solid', 'duotone']  # of families that nothing else is from
NEAR = 4  # bits of a 64-bit perceptual hash


def read(split):
    "A split's table, with the concept's name for each row; 'wild/...' is a split of IconWild."
    if split.startswith('wild/'): return read_wild(split.removeprefix('wild/'))
    t = pq.read_table(FOLDER/f'{split}.parquet').to_pydict()
    names = SUITE['splits'].get(split, {}).get('classnames', SUITE['classnames'])
    t['concept'] = [names[y] for y in t['label']]
    return t


def read_wild(split):
    "A split of IconWild."
    names = json.loads((WILD/'suite.json').read_text())['classnames']
    t = pq.read_table(WILD/f'{split}.parquet').to_pydict()
    return dict(t, concept=[names[y] for y in t['label']])


@lru_cache
def hashes(split):
    "imagehash.phash of every picture of a split, as uint64."
    pictures = [Image.open(io.BytesIO(im['bytes'])).convert('L') for im in read(split)['image']]
    return np.array([int(str(imagehash.phash(o)), 16) for o in pictures], dtype=np.uint64)


def pairs(t): return set(zip(t['family'], t['concept']))


@pytest.fixture(scope='module')
def index(): return pq.read_table(FOLDER/'index.parquet').to_pydict()


def test_the_index_is_large_and_names_every_picture_once(index):
    names = list(zip(index['prefix'], index['name']))
    assert len(set(names)) == len(names) > 200_000
    known = sum(o in set(SUITE['classnames']) for o in index['concept'])
    assert 1000 < known < len(names)  # the concepts are known, from other drawings


@pytest.mark.parametrize('split', SPLITS + TRANSFER + WILD_SPLITS)
def test_no_picture_of_a_split_was_pre_trained_on(split, index):
    names = {f'{p}:{n}' for p, n in zip(index['prefix'], index['name'])}
    assert not set(read(split)['name']) & names


@pytest.mark.parametrize('split', SPLITS)
def test_no_drawing_of_a_split_was_pre_trained_on_in_any_style(split, index):
    seen = pairs(index)
    assert len(seen) > 1000 and not pairs(read(split)) & seen


@pytest.mark.parametrize('split', TESTS)
def test_no_drawing_of_a_test_is_tuned_on(split):
    assert not pairs(read(split)) & (pairs(read('train')) | pairs(read('val')))


def test_training_and_validation_share_no_drawing():
    assert not pairs(read('train')) & pairs(read('val'))


@pytest.mark.parametrize('split', HELD_OUT)
def test_held_out_families_are_in_no_training(split, index):
    seen = set(index['family']) | set(read('train')['family']) | set(read('val')['family'])
    assert not set(read(split)['family']) & seen


@pytest.mark.parametrize('split', SPLITS + TRANSFER + WILD_SPLITS)
def test_no_near_duplicate_was_pre_trained_on(split, index):
    corpus, test = np.unique(np.array(index['phash'], dtype=np.uint64)), np.unique(hashes(split))
    nearest = min(int(np.bitwise_count(corpus ^ h).min()) for h in test)
    assert nearest > NEAR, f'{split}: a picture is {nearest} bits from one of the pre-training corpus'


@pytest.mark.parametrize('split', TESTS)
def test_no_near_duplicate_of_a_test_is_tuned_on(split):
    seen, test = np.unique(np.concatenate([hashes('train'), hashes('val')])), np.unique(hashes(split))
    nearest = min(int(np.bitwise_count(seen ^ h).min()) for h in test)
    assert nearest > NEAR, f'{split}: a picture is {nearest} bits from one that is tuned on'


@pytest.mark.parametrize('split', SPLITS + TRANSFER)
def test_each_split_is_large_enough(split):
    t = read(split)
    assert len(t['name']) >= 100 and len(SUITE['classnames']) >= 150 and len(set(t['concept'])) >= 8


def test_transfer_has_classes_that_fine_tuning_never_sees():
    ours = set(SUITE['classnames'])
    assert len(TRANSFER) >= 4 and all(not set(SUITE['splits'][k]['classnames']) & ours for k in TRANSFER)


def test_no_drawing_of_iconwild_is_on_two_sides_or_in_pre_training(index):
    sides = {k: pairs(read(k)) for k in WILD_SPLITS}
    assert not any(a & b for x, a in sides.items() for y, b in sides.items() if x < y)
    assert all(not o & pairs(index) for o in sides.values())
    seen = {f for k in WILD_SPLITS[:3] for f in read(k)['family']}
    assert not seen & set(read('wild/ood-test')['family'])


def test_no_near_duplicate_of_iconwild_is_on_two_sides():
    sides = [hashes(k) for k in WILD_SPLITS]  # train, val, then the tests
    for i, a in enumerate(sides[:2]):
        others = np.concatenate(sides[i+1:])
        assert np.bitwise_count(a[:, None] ^ others).min() > NEAR
