"Splits: copies are found however they were saved, kept on one side, and told of."
import io

import datasets
import numpy as np
import PIL.Image
import pytest
from sklearn.datasets import load_sample_images
from small_data import cache, load, make_suite, sizes  # noqa: F401

from sae_ft.data import undecoded
from sae_ft.plumbing.cache import Cache
from sae_ft.splits import copies, near_duplicates, sight


@pytest.fixture(scope='module')
def patches():
    "Thirty parts of two photographs."
    photos = [PIL.Image.fromarray(o) for o in load_sample_images().images]
    corners = [(x, y) for x in range(0, 500, 106) for y in range(0, 300, 106)]
    return [p.crop((x, y, x + 106, y + 106)) for p in photos for x, y in corners]


def again(im, quality=75, scale=1.):
    "Scaled, and saved as JPEG."
    small = im.resize((round(im.width*scale), round(im.height*scale)))
    small.save(out := io.BytesIO(), 'JPEG', quality=quality)
    return PIL.Image.open(out).convert('RGB')


@pytest.mark.parametrize('how', [dict(), dict(scale=.7), dict(scale=1.7, quality=90)])
def test_copies_of_photographs_are_found_and_no_others(patches, how):
    n = len(patches)
    group = near_duplicates(np.stack([sight(o) for o in [*patches, *(again(o, **how) for o in patches)]]))
    assert group[:n].tolist() == group[n:].tolist() == list(range(n))


def test_another_colour_is_another_picture(patches):
    im = patches[0].convert('L').convert('RGB')
    red = PIL.Image.merge('RGB', [im.getchannel(0), *[PIL.Image.new('L', im.size)]*2])
    assert len(set(near_duplicates(np.stack([sight(o) for o in (im, red)])))) == 2


def test_no_pictures_and_one(patches):
    assert near_duplicates(np.zeros((0, 16, 16, 3), np.uint8)).tolist() == []
    assert near_duplicates(sight(patches[0])[None]).tolist() == [0]


def heap(root, patches):
    "A folder with two classes, of which every picture is there twice."
    for i, im in enumerate(patches):
        (root/'ab'[i % 2]).mkdir(parents=True, exist_ok=True)
        im.save(root/'ab'[i % 2]/f'{i:02}.png')
        again(im).save(root/'ab'[i % 2]/f'{i:02}-small.png')
    return root


def test_copies_are_on_one_side_and_told_of(tmp_path, patches):
    s = load(heap(tmp_path/'heap', patches))
    assert sizes(s) == [48, 6, 6]
    names = [{r['image']['path'].rsplit('/', 1)[1][:2] for r in undecoded(o)}
             for o in (s.train, s.val, s.splits['test'].data)]
    assert sum(map(len, names)) == len(set.union(*names)) == 30
    assert s.said == ['test and val did not come with the data and were taken from train: 6 and 6 of 60 '
                      'pictures, in the proportions of the classes (seed 0); 30 groups of near-duplicates '
                      '(60 pictures) are each kept on one side.']
    assert s.said[0] in repr(s)


def test_what_was_found_is_kept(tmp_path, patches, monkeypatch):
    root, kept = heap(tmp_path/'heap', patches), Cache(tmp_path/'kept')
    first = load(root, cache=kept)
    monkeypatch.setattr('sae_ft.splits.read_sights', None)  # not read again
    assert sizes(load(root, cache=kept)) == sizes(first)
    PIL.Image.new('RGB', (9, 9)).save(root/'a'/'00.png')
    with pytest.raises(TypeError): load(root, cache=kept)   # but when a picture changed


def test_broken_pictures_are_left_to_the_screening(tmp_path, patches):
    root = heap(tmp_path/'heap', patches)
    for i in (0, 2): (root/'a'/f'{i:02}.png').write_bytes(b'no picture')
    assert sum(sizes(load(root, on_bad_image='skip'))) == 58


def test_a_suite_is_not_looked_through(tmp_path):
    assert load(make_suite(tmp_path/'s')).said == []


def test_copies_of_nothing_that_can_be_read():
    features = datasets.Features(image=datasets.Image(), label=datasets.Value('int64'))
    broken = [dict(bytes=b'x', path=None)]*2
    ds = datasets.Dataset.from_dict(dict(image=broken, label=[0, 1]), features=features)
    assert copies(ds, progress=False).tolist() == [0, 1]
