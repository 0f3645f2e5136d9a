"Screening: broken pictures are refused or skipped, and each split gets a fingerprint of what is used."
import os

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings, strategies as st
from odd_pictures import encoded
from small_data import CATS_AND_DOGS, cache, fails, folder, load, make_suite, sizes  # noqa: F401

from sae_ft import screening
from sae_ft.data import Images
from sae_ft.decoded import decoded
from sae_ft.plumbing.cache import Cache
from sae_ft.screening import screen_pictures

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=5)  # picture, label


def broken_folder(root):
    "41 pictures, of which four are broken in different ways."
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
    skipped = sorted(o.split(' (')[0][-7:] for o in sum(s.skipped.values(), []))
    assert skipped == ['002.jpg', '003.png', '004.png', '005.png']
    for ds in (s.train, s.val, s.splits['test'].data):
        for _, y in Images(ds, lambda im: torch.tensor(im.size)): assert y in (0, 1)
    fails("unknown on_bad_image 'drop': known are refuse, skip", root, on_bad_image='drop')


def test_broken_and_absent_pictures_in_parquet_are_named_by_row(tmp_path):
    files = sorted((folder(tmp_path/'f', {'cat': 18})/'cat').glob('*'))
    rows = [{'bytes': b'oops', 'path': None}, None] + [{'bytes': p.read_bytes(), 'path': None} for p in files]
    feats = datasets.Features(image=datasets.Image(), label=CATS_AND_DOGS)
    ds = datasets.Dataset.from_dict(dict(image=rows, label=[0, 1]*(len(rows)//2)), features=feats)
    ds.to_parquet(tmp_path/'a.parquet')
    assert "row " in fails('2 of .* cannot be read', tmp_path/'a.parquet')


@settings(max_examples=40, deadline=None)
@given(ROWS, ROWS)
def test_fingerprints_are_equal_where_pictures_labels_and_order_are(a, b):
    "Two short data sets of four pictures that differ in one byte, and three labels."
    raws = [encoded('PNG') + bytes([i]) for i in range(4)]  # a byte that changes no pixel

    def made(rows, label):
        columns = dict(image=[dict(bytes=raws[p], path=None) for p, _ in rows], label=[y for _, y in rows])
        return datasets.Dataset.from_dict(columns, datasets.Features(image=datasets.Image(), label=label))

    def of(rows):
        two = made([(0, 0), (0, 1)], datasets.ClassLabel(names=['a', 'b']))
        val = made(rows, datasets.Value('int64'))
        return screen_pictures(dict(train=two, val=val), progress=False)[2]['val']

    assert (of(a) == of(b)) == (a == b) and of(a) == of(list(a))


@pytest.fixture
def opened(monkeypatch):
    "The pictures that were opened so far."
    found = []
    def examine(item, roots, was=screening._examine):
        found.append(item['path'])
        return was(item, roots)
    monkeypatch.setattr(screening, '_examine', examine)
    return found


@pytest.fixture
def again(opened, tmp_path):
    "How many pictures are opened by a start, and the fingerprints it finds."
    kept = Cache(tmp_path/'kept')

    def start(root, **kw):
        opened.clear()
        suite = load(root, cache=kept, **kw)
        return len(opened), suite.fingerprint
    return start


def test_pictures_in_folders_are_opened_once_until_a_file_changes(again, tmp_path):
    root = folder(tmp_path/'pictures', {'cat': 12, 'dog': 12})
    first = again(root)
    assert first == (24, load(root).fingerprint) and again(root) == (0, first[1])
    file, raw = root/'cat'/'001.png', (root/'cat'/'001.png').read_bytes()
    when = file.stat().st_mtime_ns

    os.utime(file, ns=(when, when + 10**9))                   # the same size, another time
    n, prints = again(root)
    assert 0 < n < 24 and prints == first[1]                  # of one split
    file.write_bytes(bytes(reversed(raw)))                    # the same size, the old time
    os.utime(file, ns=(when, when))
    assert '001.png (' in fails('1 of 24 pictures cannot be read', root, cache=Cache(tmp_path/'kept'))
    file.write_bytes(raw + b' ')                              # another size
    n, prints = again(root)
    assert 0 < n < 24 and sum(prints[k] != first[1][k] for k in prints) == 1


def test_a_broken_picture_is_looked_at_again_at_every_start(again, tmp_path):
    root = broken_folder(tmp_path/'pictures')
    first = again(root, on_bad_image='skip')
    n, prints = again(root, on_bad_image='skip')
    assert 0 < n <= first[0] and prints == first[1]
    assert fails('4 of 41 pictures cannot be read', root, cache=Cache(tmp_path/'kept'))


def test_other_pictures_of_the_same_files_are_opened(again, tmp_path):
    root = folder(tmp_path/'pictures', {'cat': 12, 'dog': 12})
    whole = again(root)
    few = again(root, limit=2, seed=3)
    assert few == (6, load(root, limit=2, seed=3).fingerprint) and again(root, limit=2, seed=3)[0] == 0
    assert again(root) == (0, whole[1])


def test_pictures_in_tables_are_opened_once_until_one_changes(again, tmp_path):
    first = again(make_suite(tmp_path/'suite'))
    assert first[0] == 12 and again(tmp_path/'suite') == (0, first[1])  # every split has the same twelve
    rows = [dict(bytes=encoded('PNG') + bytes([i % 2]), path=None) for i in range(12)]
    features = datasets.Features(image=datasets.Image(), label=CATS_AND_DOGS)
    table = datasets.Dataset.from_dict(dict(image=rows, label=[0, 1]*6), features=features)
    table.to_parquet(tmp_path/'suite'/'sketch.parquet')
    n, prints = again(tmp_path/'suite')
    assert n == 12 and {k for k in prints if prints[k] != first[1][k]} == {'sketch'}


@pytest.mark.parametrize('broken, gigabytes, all_kept',
                         [(False, .1, True), (True, .1, False), (False, 1e-6, False)])
def test_what_was_decoded_for_the_check_is_kept_for_later(tmp_path, broken, gigabytes, all_kept):
    "Whole, where no picture is left out and there is room; in any case the right pictures."
    root = (broken_folder if broken else lambda o: folder(o, {'cat': 12, 'dog': 12}))(tmp_path/'pictures')
    suite = load(root, on_bad_image='skip', keep=(32, gigabytes))
    parts = [decoded(o, 32, gigabytes) for o in (suite.train, suite.val, suite.splits['test'].data)]
    assert all(o.kept == len(o) for o in parts) == all_kept
    for o in parts:
        o.keep()
        assert all(torch.equal(o[i][0], o._read(o.ds[i]['image'], i)) for i in range(len(o)))
