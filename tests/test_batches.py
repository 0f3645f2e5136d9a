"Order and crops: fixed by seed, epoch and picture, and by nothing else."
import torch
from hypothesis import given, settings, strategies as st

from small_data import pictures_of
from tiny_clip import VIEW

from sae_ft.batches import Crops, Shuffle, train_loader
from sae_ft.decoded import Decoded
from sae_ft.settings import Config

@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(0, 2**40), st.integers(0, 50), st.integers(0, 200))
def test_every_picture_comes_once_and_a_place_is_a_place_in_the_same_order(n, seed, epoch, start):
    sampler = Shuffle(n, seed)
    sampler.begin(epoch)
    whole = list(sampler)
    assert sorted(i for _, i in whole) == list(range(n)) and {e for e, _ in whole} == {epoch}
    sampler.begin(epoch, start)
    assert list(sampler) == whole[start:] and len(sampler) == n

def images(kept=1.): return Decoded(pictures_of([(40, 40)]*12), VIEW.most, kept)

def test_a_crop_depends_on_seed_epoch_and_picture_alone():
    mine = images()
    def crop(seed, *at): return Crops(mine, VIEW, seed).__getitems__(list(at))[0].to('cpu')[0]
    torch.manual_seed(1)
    first = crop(0, (2, 5))
    torch.rand(7)
    before = torch.get_rng_state()
    assert torch.equal(crop(0, (2, 5), (2, 1)), first) and torch.equal(torch.get_rng_state(), before)
    assert not any(torch.equal(crop(*o), first) for o in [(1, (2, 5)), (0, (3, 5)), (0, (2, 6))])

def batches(seed=3, **cfg):
    "Those of epoch 1, with their labels."
    cfg = Config(batch_size=5, seed=seed, **cfg)
    loader, sampler = train_loader(images(cfg.pictures_gb), VIEW, cfg)
    sampler.begin(1)
    return [(x.to('cpu'), y) for x, y in loader]

def same(one, other): return len(one) == len(other) and all(map(torch.equal, sum(one, ()), sum(other, ())))

def test_batches_are_the_same_whatever_was_drawn_before():
    torch.rand(1)
    one = batches()
    torch.rand(9)
    other = batches()
    assert [len(x) for x, _ in one] == [5, 5, 2] and same(one, other) and not same(one, batches(seed=4))

def test_two_workers_and_none_give_the_same_crops():
    assert same(batches(), batches(workers=2, pictures_gb=0.)) and same(batches(), batches(pictures_gb=0.))
    loader, _ = train_loader(images(), VIEW, Config(workers=2))
    assert loader.num_workers == 0  # all is in memory
