"Screening: broken pictures are refused or skipped, and each split gets a fingerprint of what is used."
import datasets
import numpy as np
import PIL.Image
import torch
from hypothesis import given, settings, strategies as st
from odd_pictures import encoded
from small_data import CATS_AND_DOGS, cache, fails, folder, load, sizes  # noqa: F401

from sae_ft.data import Images
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
