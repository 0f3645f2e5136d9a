"Order and crops: fixed by seed, epoch and picture, and by nothing else."
import torch
from hypothesis import given, settings, strategies as st

from sae_ft.batches import Crops, Shuffle, train_loader
from sae_ft.settings import Config

class Noise(torch.utils.data.Dataset):
    "Pictures whose transform draws from the process's generator."
    def __len__(self): return 12
    def __getitem__(self, i): return torch.rand(3) + i, i

@settings(max_examples=50, deadline=None)
@given(st.integers(1, 200), st.integers(0, 2**40), st.integers(0, 50), st.integers(0, 200))
def test_every_picture_comes_once_and_a_place_is_a_place_in_the_same_order(n, seed, epoch, start):
    sampler = Shuffle(n, seed)
    sampler.begin(epoch)
    whole = list(sampler)
    assert sorted(i for _, i in whole) == list(range(n)) and {e for e, _ in whole} == {epoch}
    sampler.begin(epoch, start)
    assert list(sampler) == whole[start:] and len(sampler) == n

def test_a_crop_depends_on_seed_epoch_and_picture_alone():
    def crop(seed, at): return Crops(Noise(), seed)[at][0]
    torch.manual_seed(1)
    first = crop(0, (2, 5))
    torch.rand(7)
    before = torch.get_rng_state()
    assert torch.equal(crop(0, (2, 5)), first) and torch.equal(torch.get_rng_state(), before)
    assert not any(torch.equal(crop(*o), first) for o in [(1, (2, 5)), (0, (3, 5)), (0, (2, 6))])

def test_batches_are_the_same_whatever_was_drawn_before():
    def batches(noise):
        torch.rand(noise)
        loader, sampler = train_loader(Noise(), Config(batch_size=5, seed=3))
        sampler.begin(1)
        return [x for x, _ in loader]
    one, other = batches(1), batches(9)
    assert [len(o) for o in one] == [5, 5, 2] and all(map(torch.equal, one, other))
