"Pictures decoded once, while they fit a budget, and in batches of any sizes."
import gc

import pytest
import torch
from small_data import picture, pictures_of, table
from tiny_clip import VIEW

from sae_ft.decoded import _ALIVE, Decoded, Views, decoded, opened_when_used, shrunk, were_read

def test_batches_of_pictures_of_many_sizes_are_in_order():
    ds = pictures_of([(20, 20), (20, 30), (20, 20), (40, 40)]*3)
    parts = [Decoded(ds, VIEW.most, 1.), Decoded(ds.select(range(5)), VIEW.most)]
    seen = Views(parts, VIEW)
    alone = [seen[i] for i in range(len(seen))]
    x, y = zip(*[(x.to('cpu'), y) for x, y in seen.loader(7)])
    assert torch.equal(torch.cat(x), torch.stack([o for o, _ in alone]))
    assert torch.cat(y).tolist() == [o for _, o in alone] == [*range(12), *range(5)]
    assert [len(o) for o in x] == [7, 7, 3] and len(next(iter(seen.loader(7, start=10)))[0]) == 7

def test_what_is_kept_fits_the_budget_of_all():
    ds, bytes_each = pictures_of([(20, 20)]*6 + [(10, 20)]*3), 20*20*3
    gc.collect()
    before = sum(o.nbytes for o in _ALIVE)
    one = Decoded(ds, 64, 1e-9*(before + 4*bytes_each))
    assert not one.keep() and one.kept == 4 and one.nbytes == 4*bytes_each
    two = Decoded(ds, 64, 1e-9*(before + 10*bytes_each))  # 6 are left
    assert not two.keep() and two.kept == 6 and sorted(two.odd) == []
    three = Decoded(ds, 64, 1.)
    assert three.keep() and sorted(three.odd) == [6, 7, 8]
    for i in range(9): assert torch.equal(one[i][0], three[i][0]) and torch.equal(two[i][0], three[i][0])
    assert not Decoded(ds, 64).keep()

def test_a_data_set_is_decoded_once_while_it_is_there():
    ds = pictures_of([(20, 20)])
    first = decoded(ds, 64, 1.)
    assert decoded(ds, 64, 1.) is first and decoded(ds, 32, 1.) is not first
    alive = len(_ALIVE)
    del ds, first
    gc.collect()
    assert len(_ALIVE) < alive

def test_a_large_picture_is_made_smaller_whether_kept_or_not():
    ds = pictures_of([(200, 150)])
    kept, anew = Decoded(ds, 64, 1.), Decoded(ds, 64)
    assert kept.keep() and torch.equal(kept[0][0], anew[0][0]) and kept[0][0].shape == (3, 85, 64)
    assert shrunk(picture(), 8).size == (8, 8) and shrunk(picture().resize((900, 9)), 3).size == (300, 3)

def test_a_picture_that_changed_is_named(tmp_path):
    file = tmp_path/'one.png'
    picture().save(file)
    ds = table([0]).remove_columns('image').add_column('image', [str(file)])
    ds = ds.cast_column('image', table([0]).features['image'])
    images = Decoded(ds, 64, 1.)
    file.write_bytes(b'gone')
    with pytest.raises(ValueError, match=r'one\.png cannot be read any more .*: it changed'): images.keep()

def test_a_label_says_whether_its_picture_was_read(tmp_path):
    "Also that of the first row, which is -1."
    files = [tmp_path/f'{i}.png' for i in range(3)]
    for o in files: picture().save(o)
    ds = table([0]*3).remove_columns('image').add_column('image', [str(o) for o in files])
    ds = opened_when_used(ds.cast_column('image', table([0]).features['image']))
    files[0].write_bytes(b'no picture')
    images = Decoded(ds, 64, 1.)
    images.keep()
    y = images.labels_at([0, 1, 2])
    assert y.tolist() == [-1, 0, 0] and were_read(y).tolist() == [False, True, True]
    assert were_read(y.numpy()).tolist() == [False, True, True]
