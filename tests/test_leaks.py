"Nothing of the test pictures is in pre-training or training: proved on the shipped index."
import io, json
from pathlib import Path

import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import sae_ft

FOLDER = Path(sae_ft.__file__).parent/'assets'/'iconshift'
SUITE = json.loads((FOLDER/'suite.json').read_text())
IN_DISTRIBUTION = ['val', 'line']
HELD_OUT = [s for s in SUITE['splits'] if s != 'line']
NEAR = 4  # bits of a 64-bit perceptual hash


def read(split):
    "A split's table, with the concept's name for each row."
    t = pq.read_table(FOLDER/f'{split}.parquet').to_pydict()
    t['concept'] = [SUITE['classnames'][y] for y in t['label']]
    return t


def hashes(split):
    "imagehash.phash of every picture of a split, as uint64."
    return np.array([int(str(imagehash.phash(Image.open(io.BytesIO(im['bytes'])).convert('L'))), 16) for im in read(split)['image']], dtype=np.uint64)


def pairs(t): return set(zip(t['family'], t['concept']))


@pytest.fixture(scope='module')
def index(): return pq.read_table(FOLDER/'index.parquet').to_pydict()


@pytest.fixture(scope='module')
def train(): return read('train')


def test_the_index_covers_the_training_pictures_and_its_hashes_are_theirs(index, train):
    known = {f'{p}:{n}': h for p, n, h in zip(index['prefix'], index['name'], index['phash'])}
    assert len(known) == len(index['name']) > 200_000
    got = hashes('train')
    assert all(known[n] == h for n, h in zip(train['name'], got))


@pytest.mark.parametrize('split', IN_DISTRIBUTION)
def test_no_drawing_of_a_test_pair_is_in_training(split, index, train):
    seen = pairs(index) | pairs(train)
    assert len(seen) > 5000 and not pairs(read(split)) & seen


def test_validation_and_test_share_no_pair():
    assert not pairs(read('val')) & pairs(read('line'))


@pytest.mark.parametrize('split', HELD_OUT)
def test_held_out_families_are_in_no_training(split, index, train):
    seen = set(index['family']) | set(train['family']) | set(read('val')['family'])
    assert not set(read(split)['family']) & seen


@pytest.mark.parametrize('split', IN_DISTRIBUTION + HELD_OUT)
def test_no_near_duplicate_crosses(split, index):
    corpus, test = np.unique(np.array(index['phash'], dtype=np.uint64)), np.unique(hashes(split))
    nearest = min(int(np.bitwise_count(corpus ^ h).min()) for h in test)
    assert nearest > NEAR, f'{split}: a picture is {nearest} bits from one of the pre-training corpus'


@pytest.mark.parametrize('split', ['train', *IN_DISTRIBUTION, *HELD_OUT])
def test_each_split_is_large_enough(split):
    t = read(split)
    assert len(t['name']) >= 100 and len(SUITE['classnames']) >= 150 and max(t['label']) < len(SUITE['classnames'])
