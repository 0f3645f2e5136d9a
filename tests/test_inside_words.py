"Words over pictures: where they are, whose they are, and how an attack is judged."
import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from sae_ft.clip import Classifier
from sae_ft.inside_words import FONTS, attack_judge, attacked, bare_words, font_file, write_word
from tiny_clip import tower

WORDS = ['cat', 'gas station', 'tv', 'hippopotamus']
QUIET = dict(precision='fp32', progress=False)

def ink(im):
    "The box of what is dark: left, top, right, bottom."
    rows, columns = np.nonzero(np.asarray(im.convert('L')) < 200)
    return columns.min(), rows.min(), columns.max(), rows.max()

def papers(n, size=(64, 64)):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=WORDS))
    rows = dict(image=[PIL.Image.new('RGB', size, 'white')]*n, label=[i % 4 for i in range(n)])
    return datasets.Dataset.from_dict(rows, features=features)

@pytest.mark.parametrize('font', FONTS)
@pytest.mark.parametrize('word', WORDS)
@pytest.mark.parametrize('size', [(64, 64), (200, 80)])
def test_a_word_stays_in_the_picture_and_fills_its_box(font, word, size):
    white = PIL.Image.new('RGB', size, 'white')
    for at in ((0, 0), (1, 1), (.5, .5)):
        left, top, right, bottom = ink(write_word(white, word, .8, at, font))
        assert right - left < .9*size[0] and bottom - top < .45*size[1]
        assert (right - left)/size[0] > .55 or (bottom - top)/size[1] > .2
    assert (np.asarray(white) == 255).all()

def test_a_rim_keeps_a_word_legible_on_black():
    found = np.asarray(write_word(PIL.Image.new('RGB', (64, 64)), 'cat'))
    assert (found > 200).any() and (found == 0).any()

def test_a_size_that_is_none_no_word_and_no_font():
    white = PIL.Image.new('RGB', (64, 64), 'white')
    for word, width in ((' ', .5), ('cat', 0), ('cat', 1.1)):
        with pytest.raises(ValueError, match='cannot be written'): write_word(white, word, width)
    with pytest.raises(ValueError, match="no font 'Papyrus': take one of DejaVuSans"): font_file('Papyrus')

def test_bare_words_are_all_classes_in_order():
    ds = bare_words(WORDS, FONTS[0], 48)
    assert ds['label'][:] == [0, 1, 2, 3] and ds.features['label'].names == WORDS
    pictures = [np.asarray(o) for o in ds['image']]
    assert all(o.shape == (48, 48, 3) and o.min() < 50 for o in pictures)
    assert not any((a == b).all() for i, a in enumerate(pictures) for b in pictures[:i])

def test_a_word_is_of_a_wrong_class_and_the_seed_decides_all():
    ds = papers(40)
    hit = attacked(ds, WORDS, [0, 1, 3], .8, seed=1)
    pairs = list(zip(hit['label'][:], hit['written'][:]))
    assert all(a != b for a, b in pairs) and {b for _, b in pairs} == {0, 1, 3}
    assert hit['label'][:] == ds['label'][:]
    again, other = (attacked(ds, WORDS, [0, 1, 3], .8, seed=o) for o in (1, 2))
    same = [all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(hit['image'], o['image']))
            for o in (again, other)]
    assert same == [True, False]
    with pytest.raises(ValueError, match='words of two classes'): attacked(ds, WORDS, [2, 2], .8)

class Light(nn.Module):
    "Sees how light a picture is, above and below, and nothing else."
    def __init__(self):
        super().__init__()
        self.preprocess_cfg, self.inner = tower(32).preprocess_cfg, nn.Identity()
    def forward(self, x):
        halves = x.mean(1).unflatten(1, (2, 16)).mean((2, 3))                   # (N, 2), 1 for white
        return self.inner(torch.stack([halves[:, 0] - halves[:, 1], halves[:, 1] - halves[:, 0]], 1) + 1)

def test_an_attack_is_judged_by_answers_and_words():
    def halves(dark):
        pixels = np.full((32, 32, 3), 255, dtype=np.uint8)
        pixels[16*dark:16*dark + 16] = 0
        return PIL.Image.fromarray(pixels)
    label = datasets.ClassLabel(names=['top', 'bottom', 'never'])
    def made(dark, y, **more):
        features = dict(image=datasets.Image(), label=label) | {k: datasets.Value('int64') for k in more}
        rows = dict(image=[halves(o) for o in dark], label=y, **more)
        return datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    clean = made([1, 1, 0, 0], [0, 0, 1, 1])                            # light above: class 0
    hit = made([1, 0, 1, 0], [0, 0, 1, 1], written=[1, 1, 0, 2])        # two are taken for their word
    W = torch.tensor([[1., 0], [0, 1], [5, 5]])
    classifier = Classifier(Light(), W).eval()
    judge = attack_judge(classifier, clean, hit, [0, 1], **QUIET)       # class 2 would always win
    assert judge({}) == dict(clean=1., attacked=.5, both=.75, fooled=.5)
    assert judge({'inner': lambda z: z.flip(1)}) == dict(clean=0., attacked=.5, both=.25, fooled=.25)
    everything = attack_judge(classifier, clean, hit, [0, 1, 2], **QUIET)
    assert everything({})['clean'] == 0. and everything({})['fooled'] == .25
    with pytest.raises(ValueError, match='in their order'):
        attack_judge(classifier, clean, hit.select([3, 2, 1, 0]), [0, 1])
