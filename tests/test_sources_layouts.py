"Layouts as they are handed out, read without opening a picture."
import os
import pickle
from pathlib import Path

import numpy as np
import paper_data
import pytest
import torchvision.datasets
from datasets import disable_progress_bars

from sae_ft.data import undecoded
from sae_ft.plumbing import listing
from sae_ft.plumbing.cache import Cache
from sae_ft.sources_layouts import (
    FMOW_PARTS, READERS, class_folders, files_of, fmow, is_parquet, iwildcam, labels_of, name_table,
    parquet_copy, relabelled, torchvision_test)

disable_progress_bars()

def test_nothing_is_opened(tmp_path, monkeypatch):
    paper_data.classes(tmp_path/'a', ['x', 'y'], 3)
    for o in (tmp_path/'a').rglob('*.JPEG'): o.chmod(0)
    monkeypatch.setattr('PIL.Image.open', lambda *a, **k: pytest.fail('a picture was opened'))
    found = class_folders(tmp_path/'a')
    assert len(found) == 6 and labels_of(found).tolist() == [0]*3 + [1]*3

def test_order_and_what_is_left_out(tmp_path):
    paper_data.classes(tmp_path, ['10', '9', '100'], 2, '{i}.jpeg')
    (tmp_path/'9'/'notes.txt').touch()
    (tmp_path/'9'/'.hidden.jpg').touch()
    (tmp_path/'.cache').mkdir()
    found = class_folders(tmp_path)
    assert found.features['label'].names == ['9', '10', '100']
    assert ['/'.join(o.split('/')[-2:]) for o in files_of(found)][:3] == ['9/0.jpeg', '9/1.jpeg', '10/0.jpeg']

def test_names_that_are_no_utf8(tmp_path):
    (tmp_path/'a').mkdir()
    with open(os.fsencode(tmp_path/'a') + b'/\xff.jpg', 'wb'): pass
    assert files_of(class_folders(tmp_path))[0].endswith('a/\ufffd.jpg')

def test_a_second_start_reads_the_folders_that_changed(tmp_path, monkeypatch):
    root, cache, read = tmp_path/'pictures', Cache(tmp_path/'cache'), []
    paper_data.classes(root, ['x', 'y'], 3)
    paper_data.classes(tmp_path/'elsewhere', ['z'], 2)
    (root/'z').symlink_to(tmp_path/'elsewhere'/'z')
    for o in (root/'x', root/'y', root, tmp_path/'elsewhere'/'z'): os.utime(o, (10**9, 10**9))
    real = listing._read_folder
    def noted(path, *a): return read.append(Path(path).name) or real(path, *a)
    monkeypatch.setattr(listing, '_read_folder', noted)
    def found(cache=cache):
        read.clear()
        ds = class_folders(root, cache)
        return ds.features['label'].names, labels_of(ds).tolist(), files_of(ds)
    first = found()
    assert sorted(read) == ['pictures', 'x', 'y', 'z'] and first[1] == [0]*3 + [1]*3 + [2]*2
    assert found() == first and not read
    (root/'y'/'y_9.JPEG').touch()
    changed = found()
    assert read == ['y'] and len(changed[2]) == 9
    assert found(None) == found() == changed
    moved = root.rename(tmp_path/'moved')
    assert files_of(class_folders(moved, cache))[0].startswith(str(moved))

def test_wilds_asks_its_folder_once(tmp_path, monkeypatch):
    paper_data.iwildcam(tmp_path, C=3)
    paper_data.fmow(tmp_path, C=3)
    cache, folders = Cache(tmp_path/'cache'), (tmp_path/'iwildcam_v2.0', tmp_path/'fmow_v1.1')
    for o in ('iwildcam_v2.0/train', 'fmow_v1.1/images'): os.utime(tmp_path/o, (10**9, 10**9))
    def found(): return [files_of(f(o, 'test', cache)) for f, o in zip((iwildcam, fmow), folders)]
    first = found()
    monkeypatch.setattr(listing, '_read_folder', lambda *a: pytest.fail('a folder was read again'))
    assert found() == first

def test_a_table_stays_itself_through_parquet(tmp_path):
    paper_data.classes(tmp_path/'pictures', ['x', 'y'], 2)
    found = class_folders(tmp_path/'pictures')
    paper_data.parquet(found, tmp_path/'copy'/'train.parquet')
    assert is_parquet(tmp_path/'copy') and not is_parquet(tmp_path/'pictures')
    copy = parquet_copy(tmp_path/'copy', 'anything')
    for a, b in zip(undecoded(copy)['image'], undecoded(found)['image']):
        assert a['bytes'] == open(b['path'], 'rb').read()
    paper_data.parquet(found, tmp_path/'copy'/'val.parquet')
    assert len(parquet_copy(tmp_path/'copy', 'val')) == 4
    with pytest.raises(ValueError, match="no parquet files of the split 'test': it has train, val"):
        parquet_copy(tmp_path/'copy', 'test')

def test_other_labels_and_columns():
    found = name_table(['a', 'b'], np.array([1, 0]), ['x', 'y'], region=['N', 'S'])
    other = relabelled(found, [2, 0], ['p', 'q', 'r'])
    assert labels_of(other).tolist() == [2, 0] and files_of(other) == ['a', 'b']
    assert other['region'][:] == ['N', 'S']

# --- WILDS

def test_iwildcam_has_its_official_splits(tmp_path):
    paper_data.iwildcam(tmp_path, C=5)
    for split in ('train', 'val', 'test', 'id_val', 'id_test'):
        found = iwildcam(tmp_path/'iwildcam_v2.0', split)
        assert labels_of(found).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        assert all(f'/train/{split}-' in o for o in files_of(found))
    assert found.features['label'].names == [f'animal {i}' for i in range(5)]

def test_fmow_crosses_split_and_year(tmp_path):
    "Row numbers are those of the whole table; what is sequestered belongs to none."
    paper_data.fmow(tmp_path, C=3)
    want = dict(train=0, id_val=3, id_test=6, val=12 + 3, test=24 + 6)  # first row: 12 rows a year, 3 a split
    for split, first in want.items():
        files = [o.rsplit('/', 1)[1] for o in files_of(fmow(tmp_path/'fmow_v1.1', split))]
        assert files == [f'rgb_img_{first + i}.png' for i in range(3)]
    assert set(want) == set(FMOW_PARTS)
    countries = ['Africa', 'Europe', 'Europe', 'Americas', 'Americas', 'Americas', 'Other']
    assert fmow(tmp_path/'fmow_v1.1', 'test')['region'][:] == [countries[i % 7] for i in (30, 31, 32)]

def test_wilds_that_is_incomplete(tmp_path):
    paper_data.iwildcam(tmp_path, C=3)
    folder = tmp_path/'iwildcam_v2.0'
    (folder/'train'/'id_test-1-0.jpg').unlink()
    with pytest.raises(ValueError, match='1 of 6 pictures .* the first is id_test-1-0.jpg'):
        iwildcam(folder, 'id_test')
    assert len(iwildcam(folder, 'test')) == 6
    (folder/'categories.csv').write_text('y,name\n0,a\n1,b\n')
    with pytest.raises(ValueError, match='no name for class 2'): iwildcam(folder, 'test')
    (folder/'categories.csv').write_text('number,what\n')
    with pytest.raises(ValueError, match='must be a table with the columns name, y'): iwildcam(folder, 'test')
    (folder/'metadata.csv').unlink()
    with pytest.raises(FileNotFoundError, match="metadata.csv' is needed"): iwildcam(folder, 'test')

# --- torchvision's readers

@pytest.mark.parametrize('name,C', [('dtd', 4), ('pets', 5), ('cars', 6)])
def test_torchvision_reads_it(name, C, tmp_path):
    getattr(paper_data, name)(tmp_path, C)
    found = torchvision_test(tmp_path, name)
    assert len(found) == len(found.features['label'].names) == C
    assert labels_of(found).tolist() == list(range(C)) and all(map(os.path.isfile, files_of(found)))

def test_caltech_and_eurosat_are_folders(tmp_path):
    paper_data.classes(tmp_path/'caltech101'/'101_ObjectCategories', ['BACKGROUND_Google', 'ant', 'bee'])
    for o in (tmp_path/'caltech101').rglob('*.JPEG'): o.rename(o.with_name('image_0001.jpg'))
    found = torchvision_test(tmp_path, 'caltech101')
    assert found.features['label'].names == ['ant', 'bee'] and all(map(os.path.isfile, files_of(found)))
    paper_data.classes(tmp_path/'eurosat'/'2750', ['AnnualCrop', 'Forest'], 2, '{c}_{i}.jpg')
    assert labels_of(torchvision_test(tmp_path, 'eurosat')).tolist() == [0, 0, 1, 1]

def test_aircraft_is_read_by_variant(tmp_path):
    data = tmp_path/'fgvc-aircraft-2013b'/'data'
    (data/'images').mkdir(parents=True)
    (data/'variants.txt').write_text('707-320\nDC-3\n')
    (data/'images_variant_test.txt').write_text('0000002 DC-3\n0000001 707-320\n')
    found = torchvision_test(tmp_path, 'aircraft')
    assert [o[-11:] for o in files_of(found)] == ['0000002.jpg', '0000001.jpg']
    assert labels_of(found).tolist() == [1, 0]

def test_arrays_become_the_same_pixels(tmp_path, monkeypatch):
    "CIFAR: torchvision reads it if the checksums are right, which those of this tiny one are made to be."
    monkeypatch.setattr(torchvision.datasets.CIFAR10, '_check_integrity', lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, 'check_integrity', lambda *a: True)
    folder, rng = tmp_path/'cifar-10-batches-py', np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 3072), np.uint8)
    folder.mkdir()
    (folder/'test_batch').write_bytes(pickle.dumps(dict(data=pixels, labels=[2, 0, 1])))
    (folder/'batches.meta').write_bytes(pickle.dumps(dict(label_names=['cat', 'dog', 'frog'])))
    found = torchvision_test(tmp_path, 'cifar10')
    assert labels_of(found).tolist() == [2, 0, 1] and found.features['label'].names == ['cat', 'dog', 'frog']
    for im, want in zip(found['image'], pixels):
        assert (np.array(im).transpose(2, 0, 1).ravel() == want).all()

def test_a_file_with_another_checksum_is_never_unpickled(tmp_path):
    class Evil:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'evil'),)
    folder = tmp_path/'cifar-10-batches-py'
    folder.mkdir()
    for o in ('test_batch', 'batches.meta'): (folder/o).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="cannot read 'cifar10' .*not found or corrupted"):
        torchvision_test(tmp_path, 'cifar10')
    assert not (tmp_path/'evil').exists()

@pytest.mark.parametrize('name', READERS)
def test_what_is_not_there_is_said_in_a_sentence(name, tmp_path):
    with pytest.raises(ValueError, match=f"cannot read '{name}'") as e: torchvision_test(tmp_path, name)
    assert '\n' not in str(e.value)
