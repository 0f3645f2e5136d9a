"Batches as a tower sees them, against open_clip's transforms, torchvision's rule and Pillow."
import math

import PIL.Image
import pytest
import torch
import torchvision.transforms as T
import torchvision.transforms.functional as TF
from small_data import picture, pictures_of
from tiny_clip import VIEW, tower

from sae_ft import crops
from sae_ft.clip import transforms
from sae_ft.crops import AREA, DRAWS, RATIO, View, crop_boxes, crop_draws, weights
from sae_ft.data import Images
from sae_ft.decoded import Decoded, Views

SIZES = [(32, 32), (48, 48), (20, 27), (31, 64), (50, 33), (64, 9), (7, 60), (64, 64)]  # height, width
SHORTEST = [dict(), dict(interpolation='bilinear'), dict(size=(24, 40))]
OTHERS = [dict(resize_mode='squash'), dict(resize_mode='longest'), dict(resize_mode='longest', fill_color=99),
          dict(size=(24, 40), resize_mode='squash')]

def width_first(resize):
    "Pillow's `resize`, whose version 13 takes the height first for some pictures, in two calls."
    def one(self, size, *how, **named):
        return resize(resize(self, (size[0], self.height), *how, **named), size, *how, **named)
    return one

def same_as_open_clip(how):
    visual, ds = tower(**how), pictures_of(SIZES)
    view, want = View(visual), Images(ds, transforms(visual)[1])
    seen = Views([Decoded(ds, view.most)], view)
    for i in range(len(ds)): assert torch.equal(seen[i][0], want[i][0]), SIZES[i]

@pytest.mark.parametrize('how', SHORTEST, ids=str)
def test_whole_pictures_are_those_of_open_clip_to_the_bit(how): same_as_open_clip(how)

@pytest.mark.parametrize('how', OTHERS, ids=str)
def test_so_they_are_for_towers_that_squash_or_pad_if_the_width_comes_first(how, monkeypatch):
    monkeypatch.setattr(PIL.Image.Image, 'resize', width_first(PIL.Image.Image.resize))
    same_as_open_clip(how)

@pytest.mark.parametrize('size', [16, 32, 75])
def test_crops_are_those_of_pillow_to_the_bit(size, monkeypatch):
    monkeypatch.setattr(PIL.Image.Image, 'resize', width_first(PIL.Image.Image.resize))
    ds, view, u = pictures_of(SIZES), View(tower(size)), crop_draws(0, 0, len(SIZES))
    for i, (h, w) in enumerate(SIZES):
        box, = crop_boxes(u[i:i + 1], h, w).tolist()
        im = TF.resized_crop(ds[i]['image'], *box, view.size, TF.InterpolationMode.BICUBIC)
        want = TF.normalize(TF.to_tensor(im), view.mean, view.std)
        pixels = TF.pil_to_tensor(ds[i]['image'])[None]
        assert torch.equal(view(pixels, u[i:i + 1])[0], want), (h, w, box)

@pytest.mark.parametrize('train', [True, False])
def test_smooth_pictures_are_those_of_pillow_in_any_order(train):
    "As photographs are: at most one level of 255 apart, and most pixels alike."
    view, sizes = View(tower(32)), [(60, 45), (64, 64), (45, 60), (90, 70)]
    for i, (h, w) in enumerate(sizes):
        noise = pictures_of([(8, 8)])[0]['image'].resize((w, h), PIL.Image.Resampling.BICUBIC)
        u = crop_draws(0, i, 1) if train else None
        seen = view(TF.pil_to_tensor(noise)[None], u)[0]
        box, = crop_boxes(u, h, w).tolist() if train else [None]
        if train: im = TF.resized_crop(noise, *box, view.size, TF.InterpolationMode.BICUBIC)
        else: im = TF.center_crop(TF.resize(noise, 32, TF.InterpolationMode.BICUBIC), 32)
        apart = ((seen - TF.normalize(TF.to_tensor(im), view.mean, view.std))*127.5).abs().round()
        assert apart.max() <= 1 and apart.mean() < .3

class Given:
    "torchvision's rule of a crop, fed with a row of ours instead of a generator."
    def __init__(self, monkeypatch, u):
        self.tries, self.place = [float(o) for pair in zip(u[:10], u[10:20]) for o in pair], u[20:].tolist()
        monkeypatch.setattr(torch.Tensor, 'uniform_', lambda x, a, b: self.uniform(x, float(a), float(b)))
        monkeypatch.setattr(torch, 'randint', self.whole)
    def uniform(self, x, a, b): return x.fill_(a + (b - a)*self.tries.pop(0))
    def whole(self, low, high, size): return torch.tensor([math.floor(self.place.pop(0)*high)])

@pytest.mark.parametrize('h, w', [(48, 48), (90, 100), (400, 500), (30, 100), (100, 20)])
def test_a_crop_is_that_of_torchvision_given_its_random_numbers(h, w, monkeypatch):
    rule = T.RandomResizedCrop(32, scale=(.9, 1.))
    u = torch.rand(300, DRAWS, generator=torch.Generator().manual_seed(0))
    boxes, im = crop_boxes(u, h, w).tolist(), picture().resize((w, h))
    for row, box in zip(u, boxes):
        with monkeypatch.context() as patch:
            Given(patch, row)
            assert box == list(rule.get_params(im, rule.scale, rule.ratio))

def test_the_rule_of_crops_is_that_of_the_transform_for_training():
    rule = transforms(tower())[0].transforms[0]
    assert isinstance(rule, T.RandomResizedCrop) and rule.interpolation is TF.InterpolationMode.BICUBIC
    assert rule.scale == AREA and tuple(rule.ratio) == RATIO

def test_a_picture_is_seen_alike_in_every_batch(monkeypatch):
    g, u = torch.Generator().manual_seed(0), crop_draws(0, 1, 40)
    pixels = torch.randint(256, (40, 3, 37, 45), generator=g, dtype=torch.uint8)
    every = VIEW(pixels, u)
    for n in (1, 2, 7, 39):
        rows = torch.randperm(40, generator=g)[:n]
        assert torch.equal(VIEW(pixels[rows], u[rows]), every[rows])
    with torch.autocast('cpu', torch.bfloat16): assert torch.equal(VIEW(pixels, u), every)
    monkeypatch.setattr(crops, 'MOST', (1, 1))  # one picture at a time
    assert torch.equal(VIEW(pixels, u), every)

def test_weights_add_up_and_stay_within_the_crop():
    axis = torch.tensor([[3, 20, 50, 0], [0, 30, 10, -2]])
    a, b = weights(axis, 40, 12, 'bicubic').double().chunk(2, 1)
    w = (a + b)/2048
    assert w[0, :, :3].eq(0).all() and w[0, :, 23:].eq(0).all() and w[1, :2].eq(0).all()
    assert torch.allclose(w[0].sum(-1), torch.ones(12, dtype=torch.float64), atol=1e-5)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_gpu_agrees_with_cpu_to_the_bit():
    pixels = torch.randint(256, (30, 3, 90, 70), dtype=torch.uint8)
    for u in (None, crop_draws(0, 0, 30)):
        levels = [(VIEW(o, u).cpu()*.5 + .5)*255 for o in (pixels, pixels.cuda())]
        assert torch.equal(*[o.round() for o in levels])
