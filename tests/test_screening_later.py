"Pictures that are opened when used: which they are, and what happens with one that cannot be read."
import datasets
import paper_data
import PIL.Image
import pytest
import torch
from tiny_clip import VIEW

from sae_ft.decoded import Views, decoded
from sae_ft.plumbing.pictures import decode
from sae_ft.screening import BadPictures
from sae_ft.screening_later import Unread, glance, look_later, tell_unread
from sae_ft.sources_layouts import class_folders

datasets.disable_progress_bars()

def pictures(root, n=6):
    paper_data.classes(root, ['a', 'b'], n)
    return class_folders(root)

def test_the_fingerprint_is_of_names_labels_and_some_contents(tmp_path):
    a, b = pictures(tmp_path/'one'), pictures(tmp_path/'two')
    assert glance(a) == glance(b)
    file = tmp_path/'two'/'a'/'a_3.JPEG'
    file.write_bytes(file.read_bytes() + b' ')  # all saved anew would be seen; of twelve, one is
    assert glance(class_folders(tmp_path/'two')) != glance(a)
    file.rename(file.with_name('z.JPEG'))
    others = class_folders(tmp_path/'two'), a.select(range(11)), a.select(range(11, -1, -1))
    assert len({glance(a), *map(glance, others)}) == 4

def test_few_files_are_opened_at_the_start(tmp_path, monkeypatch):
    import sae_ft.screening_later as later
    ds, opened = pictures(tmp_path, 200), []
    real = later.read_bytes
    monkeypatch.setattr(later, 'read_bytes', lambda item: opened.append(item['path']) or real(item))
    monkeypatch.setattr(PIL.Image, 'open', lambda *a, **k: pytest.fail('a picture was decoded'))
    look_later(dict(train=ds))
    assert len(opened) == len(set(opened)) == later.LOOKED_AT

def cut(file): file.write_bytes(file.read_bytes()[:-400])

@pytest.mark.parametrize('gb', [0., .1])
@pytest.mark.parametrize('workers', [0, 1])
def test_it_is_served_with_its_row_and_told_at_the_end(tmp_path, gb, workers):
    ds = pictures(tmp_path)
    cut(tmp_path/'a'/'a_2.JPEG')
    (tmp_path/'b'/'b_5.JPEG').unlink()
    ds = look_later(dict(train=ds))[0]['train']
    views = Views([decoded(ds, 64, gb)], VIEW)
    y = torch.cat([y for _, y in views.loader(4, workers)])
    assert y.tolist() == [0, 0, -3, 0, 0, 0, 1, 1, 1, 1, 1, -12]
    with pytest.raises(BadPictures) as e: tell_unread(ds, 'train', y, 'refuse')
    assert e.value.bad == {'train': ['a/a_2.JPEG (truncated)', 'b/b_5.JPEG (no such file)']}
    with pytest.warns(UserWarning, match="2 of 12 pictures of 'train' cannot be read and are left out"):
        tell_unread(ds, 'train', y, 'skip')

def test_cmyk_and_grey_pictures_are_no_reason_to_stop(tmp_path):
    ds = pictures(tmp_path)
    PIL.Image.new('CMYK', (40, 40), (0, 255, 255, 0)).save(tmp_path/'a'/'a_1.JPEG')
    PIL.Image.new('L', (40, 40), 99).save(tmp_path/'a'/'a_2.JPEG')
    images = decoded(look_later(dict(train=ds))[0]['train'], 64, 0.)
    (x, y), (grey, _) = images[1], images[2]
    assert y == 0 and x.shape == (3, 40, 40)
    assert (x[0] > 200).all() and (x[1:] < 60).all()  # red
    assert (grey == 99).all() and not images.unread
    assert decode((tmp_path/'a'/'a_2.JPEG').read_bytes()).mode == 'RGB'

def test_checked_pictures_are_still_refused_at_once(tmp_path):
    ds = pictures(tmp_path)
    cut(tmp_path/'a'/'a_0.JPEG')
    with pytest.raises(ValueError, match=r'cannot be read any more \(truncated\)'): decoded(ds, 64, 0.)[0]

def test_a_batch_keeps_its_size(tmp_path):
    ds = look_later(dict(train=pictures(tmp_path)))[0]['train']
    x, y = torch.arange(4.).view(4, 1, 1, 1), torch.tensor([-1 - 5, 1, 0, -1 - 2])
    unread = Unread(ds, 'skip', True)
    mended, labels = unread.mend(x, y)
    assert mended.flatten().tolist() == [1, 1, 2, 1] and labels.tolist() == [1, 1, 0, 1]
    with pytest.warns(UserWarning, match='a/a_2.JPEG .*, a/a_5.JPEG'): unread.tell()
    none, labels = unread.mend(x, torch.tensor([-1, -2, -3, -4]))
    assert none.shape == x.shape and labels.min() == 0  # the loss is defined; the epoch's end says the rest
    other = Unread(ds, 'refuse', False)
    assert other.mend(x, y)[0] is x and other.mend(x, y)[1] is y

def test_the_policy_is_checked():
    y = torch.tensor([0])
    with pytest.raises(ValueError, match='known are refuse, skip'): tell_unread(None, 'a', y, 'ignore')
