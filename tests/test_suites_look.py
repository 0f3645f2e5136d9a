"A first look: what is hidden in a data set is said in sentences and drawn, whatever the pictures are."
import numpy as np
import PIL.Image
import pytest
from small_data import cache, folder, load, make_suite  # noqa: F401

from sae_ft.suites_look import findings, first_look, measures, names_table, sharpness

def noise(size, seed=0):
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))

def test_sharpness_ranks_blurred_pictures_and_not_dark_ones():
    im = noise((100, 80))
    dark = im.point(lambda v: v//4)
    blurred = im.resize((10, 8)).resize(im.size, PIL.Image.Resampling.BICUBIC)
    assert sharpness(dark) == pytest.approx(sharpness(im), rel=.1) and sharpness(blurred) < sharpness(im)/4
    assert sharpness(PIL.Image.new('RGB', (1, 500))) == sharpness(noise((2, 2))) == 0

def test_what_is_wrong_is_said(tmp_path):
    "Equal files in train and test, one of them under another label; a rare class; a small picture."
    root, seed = tmp_path/'own', iter(range(999))
    few = {'cat': 2, 'dog': 2}
    for split, counts in dict(train={'cat': 60, 'dog': 4}, val=few, test=few).items():
        for c, n in counts.items():
            (root/split/c).mkdir(parents=True)
            for i in range(n): noise((70, 80), next(seed)).save(root/split/c/f'{i}.png')
    twin = (root/'train'/'cat'/'0.png').read_bytes()
    for place in ('test/cat/0.png', 'test/dog/0.png'): (root/place).write_bytes(twin)
    noise((20, 20), 1000).save(root/'train'/'cat'/'1.png')
    noise((70, 80), 1001).convert('L').save(root/'train'/'cat'/'2.png')
    for i in 3, 4: noise((70, 80), 1000 + i).convert('CMYK').save(root/'train'/'cat'/f'{i}.png', 'JPEG')
    suite = load(root)
    table = measures(suite)
    said = ' '.join(findings(table, suite.classnames))
    for part in (
            "'cat' with 94 % of the pictures, the rarest 'dog' with 4 pictures", '1 classes have fewer',
            'Accuracy follows the common classes', '1 pictures are smaller than 64 pixels',
            'Not stored as RGB: 2 CMYK, 1 grey.',
            '3 pictures are near-duplicates of others (1 groups)', 'groups have more than one class',
            '1 of these groups are in more than one split'):
        assert part in said, part
    fig = first_look(suite, table)
    titles = [ax.get_title() for sub in fig.subfigs for ax in sub.axes]
    assert titles[:3] == ['pictures a class', 'sizes', 'sharpness'] and 'test: dog' in titles

def test_any_pictures_can_be_looked_at(tmp_path):
    suite = load(folder(tmp_path, {'a$b': 11, 'c_d': 11}))  # of one colour, eight pixels wide
    said = ' '.join(findings(measures(suite, most=5), suite.classnames))
    assert 'No near-duplicates were found.' in said
    first_look(suite).savefig(tmp_path/'fig.png')

def test_many_classes_and_classes_of_other_splits(tmp_path):
    suite = load(folder(tmp_path, {f'c{i:02}': 3 for i in range(30)}))
    bars = first_look(suite).subfigs[0].axes[0]
    assert len(bars.get_yticklabels()) == 20 and 'rarest' in bars.get_title()
    assert set(measures(load(make_suite(tmp_path/'s'))).split) == {'train', 'val', 'photo', 'sketch'}

def test_names_and_what_they_were_taken_for(tmp_path):
    suite = load(folder(tmp_path, {'1.SeaLion': 12, '2.Dog': 12}))
    t = names_table(suite, np.array([1, 1, 1, 0]), np.array([0, 0, 1, 1]))
    assert list(t.index) == ['1.SeaLion', '2.Dog'] and list(t['asked for as']) == ['Sea Lion', 'Dog']
    assert list(t['zero-shot right %']) == [0, 50]
    assert list(t['taken most for']) == ['Dog (100 %)', 'Sea Lion (50 %)']
