"Tiny data sets for tests, and short ways to load them."
import json

import datasets
import numpy as np
import PIL.Image
import pytest

from sae_ft.suites import load_suite

CATS_AND_DOGS = datasets.ClassLabel(names=['cat', 'dog'])


@pytest.fixture(autouse=True, scope='module')
def cache(tmp_path_factory):
    "Parquet is cached here, not in the user's folder."
    was = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp('cache')
    yield
    datasets.config.HF_DATASETS_CACHE = was


def picture(colour=(9, 9, 9), mode='RGB'): return PIL.Image.new(mode, (8, 8), colour)


def folder(root, counts, ending='.png'):
    "A folder of class folders with so many pictures each."
    for c, n in counts.items():
        (root/c).mkdir(parents=True, exist_ok=True)
        for i in range(n): picture((i % 256, 5, 5)).save(root/c/f'{i:03}{ending}')
    return root


def table(labels, label='label', image='image', feature=None):
    "A data set with a picture for each label."
    feats = datasets.Features({image: datasets.Image(), label: feature or datasets.Value('int64')})
    pictures = [picture((i % 256, 0, 0)) for i in range(len(labels))]
    return datasets.Dataset.from_dict({image: pictures, label: labels}, features=feats)


def pictures_of(sizes):
    "A data set with a picture of noise for each (height, width), its row as its label."
    rng = np.random.default_rng(0)
    pictures = [PIL.Image.fromarray(rng.integers(0, 256, (*o, 3), dtype=np.uint8)) for o in sizes]
    feats = datasets.Features(image=datasets.Image(), label=datasets.Value('int64'))
    return datasets.Dataset.from_dict(dict(image=pictures, label=[*range(len(sizes))]), features=feats)


def make_suite(root, names=('cat', 'dog'), splits={'photo': 'id', 'sketch': 'far'}):
    "A folder with suite.json."
    root.mkdir()
    for k in ('train', 'val', *splits, 'index'):
        table([0, 1]*6, feature=datasets.ClassLabel(names=list(names))).to_parquet(root/f'{k}.parquet')
    meta = dict(name='ours', classnames=list(names), templates=['a {}.'], train='train', val='val',
                splits={k: dict(kind=v, metric='accuracy') for k, v in splits.items()})
    (root/'suite.json').write_text(json.dumps(meta))
    return root


def load(spec, **kw): return load_suite(str(spec), progress=False, **kw)


def sizes(suite): return [len(suite.train), len(suite.val), *(len(s.data) for s in suite.splits.values())]


def fails(says, spec, error=ValueError, **kw):
    "The one sentence that it is refused with."
    with pytest.raises(error, match=says) as e: load(spec, **kw)
    text = str(e.value)
    assert '\n' not in text and len(text) < 700, text
    return text
