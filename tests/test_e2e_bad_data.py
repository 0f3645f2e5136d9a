"""End to end: pictures, labels and files that are not what they should be, through `load_suite`.

Each is refused or skipped as promised, and nothing is left behind."""
import io
import json
import os
import pickle
import re
import socket
import struct
import time
import warnings
import zipfile
import zlib
from pathlib import Path

import datasets
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from odd_pictures import chunk, encoded, exif, png, saved, tall

from sae_ft.data import Images, show_pictures, undecoded
from sae_ft.plumbing.pictures import decode
from sae_ft.screening import BadPictures
from sae_ft.suites import load_suite

NAMES = ['cat', 'dog']


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    "The cache of parquet and the working folder are the test's own."
    (tmp_path/'cwd').mkdir()
    monkeypatch.chdir(tmp_path/'cwd')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path/'cache')


@pytest.fixture
def good(tmp_path):
    "A folder with twelve good pictures of each of two classes."
    for c in NAMES:
        (tmp_path/'data'/c).mkdir(parents=True)
        for i in range(12): PIL.Image.new('RGB', (8, 8), (20*i, 3, 9)).save(tmp_path/'data'/c/f'{i:02}.png')
    return tmp_path/'data'


def load(spec, **kw): return load_suite(str(spec), progress=False, **kw)


def pictures_of(suite):
    return len(suite.train) + len(suite.val) + sum(len(o.data) for o in suite.splits.values())


def snapshot(folder):
    "Everything in it but the cache, with times and sizes."
    found = [o for o in folder.rglob('*') if 'cache' not in o.parts]
    return {str(o): (o.lstat().st_mtime_ns, o.lstat().st_size) for o in found}


def refused(spec, error=ValueError, **kw):
    "The one sentence that it is refused with, at once, leaving everything as it was."
    t, place = time.time(), Path(spec) if os.path.isdir(spec) else Path(spec).parent
    before = snapshot(place)
    with pytest.raises((ValueError, FileNotFoundError)) as e: load(spec, **kw)
    assert '\n' not in str(e.value) and time.time() - t < 10 and isinstance(e.value, error)
    assert snapshot(place) == before
    return e.value


# --- bad pictures

def zipped():
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z: z.writestr('a.png', encoded('PNG'))
    return out.getvalue()


class Evil:
    def __reduce__(self): return os.system, ('touch executed',)


GIF_BOMB = (b'GIF89a' + struct.pack('<HHBBB', 65535, 65535, 0, 0, 0) + b','
            + struct.pack('<HHHHB', 0, 0, 65535, 65535, 0) + b'\x02\x00;')
BMP_BOMB = encoded('BMP')[:18] + struct.pack('<ii', 60_000, 60_000) + encoded('BMP')[26:]
TEXT_BOMB = chunk(b'zTXt', b'a\0\0' + zlib.compress(bytes(50_000_000)))
PROGRAM = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n'
DRAWING = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
UNKNOWN, CUT = 'no picture of a known kind', 'truncated|damaged'
BROKEN = 'damaged|truncated|no picture of a known kind'
FILES = {  # name: (what is in it, why it is refused)
    'cut.png': (encoded('PNG')[:300], CUT),
    'cut.jpg': (encoded('JPEG', (64, 64))[:700], CUT),
    'cut.gif': (encoded('GIF')[:300], BROKEN),
    'cut.webp': (encoded('WEBP')[:60], BROKEN),
    'cut.tiff': (encoded('TIFF')[:200], BROKEN),
    'cut.bmp': (encoded('BMP')[:200], CUT),
    'cut.ppm': (encoded('PPM')[:200], CUT),
    'header only.png': (encoded('PNG')[:33], BROKEN),
    'empty.png': (b'', 'empty file'),
    'empty.jpg': (b'', 'empty file'),
    'text.jpg': (b'dear reader, this is no picture', UNKNOWN),
    'page.png': (b'<html><body>404 Not Found</body></html>', UNKNOWN),
    'print.png': (b'%PDF-1.7\n1 0 obj\n', UNKNOWN),
    'program.png': (PROGRAM, UNKNOWN),
    'drawing.png': (DRAWING, UNKNOWN),
    'archive.jpg': (zipped(), UNKNOWN),
    'pickle.png': (pickle.dumps(Evil()), UNKNOWN),
    'array.png': (b'\x93NUMPY\x01\x00' + b'v\x00' + b' '*118, UNKNOWN),
    'noise.jpg': (np.random.default_rng(1).bytes(500), UNKNOWN),
    'zeros.png': (bytes(500), UNKNOWN),
    'bomb.png': (png(40_000, 40_000), 'too large'),
    'large.png': (png(9_500, 9_500), r'too large \(90,250,000 pixels; at most 89,478,485\)'),
    'bomb.gif': (GIF_BOMB, 'too large'),
    'bomb.ppm': (b'P6 100000 100000 255\n', 'too large'),
    'bomb.bmp': (BMP_BOMB, 'too large'),
    'text bomb.png': (png(4, 4, bytes(52), TEXT_BOMB), BROKEN),
    'no width.png': (png(0, 4), BROKEN),
    'no pixels.png': (png(4, 4), CUT),
    'middle.png': (encoded('PNG')[:60] + bytes(200) + encoded('PNG')[260:], BROKEN),
    'other layout.tiff': (b'II*\0\x08\0\0\0' + bytes(40), BROKEN),
}


def a_socket(path):
    was = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(was)


def huge(path): os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**40)


def elsewhere(p):
    "A good picture beside the data set."
    place = p.parents[2]/'elsewhere'
    place.mkdir(exist_ok=True)
    (place/'a.png').write_bytes(encoded('PNG'))
    return place/'a.png'


OUT = 'leads out of the data set'
PLACES = {  # name: (how it is made, why it is refused)
    'queue.png': (os.mkfifo, 'not a file'),
    'socket.png': (a_socket, 'not a file'),
    'dangling.png': (lambda p: p.symlink_to('nowhere.png'), 'no such file'),
    'myself.png': (lambda p: p.symlink_to(p), 'no such file|cannot be opened'),
    'out.png': (lambda p: p.symlink_to(elsewhere(p)), OUT),
    'up.png': (lambda p: p.symlink_to('../../elsewhere.png'), 'leads out|no such file'),
    'linked folder': (lambda p: p.symlink_to(elsewhere(p).parent), OUT),
    'device.png': (lambda p: p.symlink_to('/dev/zero'), OUT),
    'folder.png': (lambda p: p.mkdir(), 'a folder'),
    'one.png': (huge, r'too large \(1,099,511,627,776 bytes'),
}


@pytest.mark.parametrize('name', [*FILES, *PLACES])
def test_a_bad_picture_is_refused_or_skipped(name, good, tmp_path):
    path = good/'cat'/name
    if name in FILES: path.write_bytes(FILES[name][0])
    else: PLACES[name][0](path)
    reason = (FILES.get(name) or PLACES[name])[1]
    before = snapshot(tmp_path)
    error = refused(good, BadPictures)
    says = (rf'1 of 25 pictures cannot be read: cat/{re.escape(name)} \(.*({reason}).*\); '
            r"repair or delete it, or set on_bad_image to 'skip'\.")
    assert re.fullmatch(says, str(error)), error
    suite = load(good, on_bad_image='skip')
    assert pictures_of(suite) == 24
    assert suite.skipped == error.bad and len(sum(suite.skipped.values(), [])) == 1
    assert snapshot(tmp_path) == before and not Path('executed').exists()


def test_many_bad_pictures_are_listed_and_counted(good):
    for i in range(12): (good/'dog'/f'{i:02}.png').write_bytes(b'')
    error = refused(good, BadPictures)
    assert str(error).startswith('12 of 24 pictures cannot be read: dog/')
    assert str(error).count('(empty file)') == 10 and ' and 2 more; repair' in str(error)
    assert sorted(sum(error.bad.values(), [])) == [f'dog/{i:02}.png (empty file)' for i in range(12)]
    assert set(error.bad) <= {'train', 'val', 'test'}


def test_nothing_left_of_a_class_or_of_all(good):
    for i in range(12): (good/'dog'/f'{i:02}.png').write_bytes(b'')
    assert re.search('one class only|no picture of split', str(refused(good, on_bad_image='skip')))
    (good/'fish').mkdir()
    for i in range(12): (good/'fish'/f'{i}.png').write_bytes(encoded('PNG'))
    with pytest.warns(UserWarning, match="classes without a training picture that can be read: 'dog'"):
        suite = load(good, on_bad_image='skip')
    assert suite.classnames == ['cat', 'dog', 'fish'] and set(suite.train['label'][:]) == {0, 2}


def test_nothing_left_of_a_split(good, tmp_path):
    (tmp_path/'own'/'val'/'cat').mkdir(parents=True)
    good.rename(tmp_path/'own'/'train')
    (tmp_path/'own'/'val'/'cat'/'a.png').touch()
    says = "no picture of split 'val' can be read: the first is val/cat/a.png (empty file)"
    assert says in str(refused(tmp_path/'own', on_bad_image='skip'))


# --- odd, but good

def animated(kind):
    out, frames = io.BytesIO(), [PIL.Image.new('RGB', (8, 8), o) for o in ('red', 'blue')]
    how = {'lossless': True} if kind == 'WEBP' else {}
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], **how)
    return out.getvalue()


def glass():
    im = PIL.Image.new('RGBA', (8, 8), (0, 0, 0, 0))
    im.paste((255, 0, 0, 255), (0, 0, 4, 8))
    return im


def jpeg(im, **how): return saved(im, 'JPEG', quality=100, **how)


def plain(mode, colour, size=(8, 8)): return PIL.Image.new(mode, size, colour)


BLACK, WHITE, GREY, RED, BLUE = (0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (0, 0, 255)
DEEP = PIL.Image.fromarray(np.full((8, 8), 257*128, np.uint16))
ON_ITS_SIDE = tall().transpose(PIL.Image.Transpose.ROTATE_90)
ODD = {  # name: (what is in it, a place, the colour there)
    'cmyk.jpg': (jpeg(plain('CMYK', (0, 255, 255, 0))), (1, 1), RED),
    'deep.png': (saved(DEEP, 'PNG'), (1, 1), GREY),
    'palette.png': (saved(glass().quantize(4), 'PNG'), (6, 1), WHITE),
    'glass.png': (saved(glass(), 'PNG'), (1, 1), RED),
    'grey glass.png': (saved(plain('LA', (0, 0)), 'PNG'), (1, 1), WHITE),
    'moving.gif': (animated('GIF'), (1, 1), RED),
    'moving.webp': (animated('WEBP'), (1, 1), RED),
    'moving.png': (animated('PNG'), (1, 1), RED),
    'on its side.jpg': (jpeg(ON_ITS_SIDE, exif=exif(6)), (1, 0), BLACK),
    'odd side.jpg': (jpeg(tall(), exif=exif(99)), (1, 0), BLACK),
    'exif noise.jpg': (jpeg(tall(), exif=b'Exif\0\0' + b'\xff'*40), (1, 0), BLACK),
    'point.png': (saved(plain('RGB', 'blue', (1, 1)), 'PNG'), (0, 0), BLUE),
    'thread.png': (saved(plain('RGB', 'blue', (1, 3000)), 'PNG'), (0, 2999), BLUE),
    'really a png.jpg': (saved(tall(), 'PNG'), (1, 7), WHITE),
    'LOUD.PNG': (saved(tall(), 'PNG'), (1, 0), BLACK),
    'one bit.png': (saved(plain('1', 1), 'PNG'), (1, 1), WHITE),
}


@pytest.mark.parametrize('name', ODD)
def test_an_odd_picture_comes_out_right(name, good):
    raw, at, want = ODD[name]
    (good/'cat'/name).write_bytes(raw)
    suite = load(good)
    assert not suite.skipped and pictures_of(suite) == 25
    im = decode(dict(bytes=None, path=str(good/'cat'/name)))
    assert im.mode == 'RGB' and np.abs(np.array(im.getpixel(at)) - want).max() < 12
    assert im.size == (4, 8) or 'side' not in name


# --- folders

def test_links_within_are_followed_and_loops_are_not(good):
    for name, to in {'again': '.', 'above': '..', 'other': good/'cat'/'other2', 'other2': 'other'}.items():
        (good/'cat'/name).symlink_to(to)
    assert pictures_of(load(good)) == 24  # a loop brings nothing, least of all the other class
    (good/'cat'/'00 copy.png').symlink_to('00.png')
    (good/'fish').symlink_to('dog')
    suite = load(good)
    assert suite.classnames == ['cat', 'dog', 'fish'] and pictures_of(suite) == 37
    (good.parent/'link').symlink_to(good)
    assert load(good.parent/'link').fingerprint == suite.fingerprint


def test_many_links_to_one_folder_take_no_time(good):
    for i in range(30):
        (good/'cat'/f'd{i}').mkdir()
        for o in 'xy' if i else '': (good/'cat'/f'd{i - 1}'/o).symlink_to(f'../d{i}')
    t = time.time()
    assert pictures_of(load(good)) == 24 and time.time() - t < 5


def test_a_link_to_all_pictures_of_a_split(good, tmp_path):
    (tmp_path/'own'/'train').mkdir(parents=True)
    good.rename(tmp_path/'own'/'train'/'x')
    (tmp_path/'own'/'val').symlink_to(tmp_path/'own'/'train'/'x')
    assert re.search('one class only|other class', str(refused(tmp_path/'own')))


def unreadable(monkeypatch, name):
    "As if the rights to a file or folder were missing (tests may run as root, who has all)."
    opened, scanned, listed, rights = open, os.scandir, os.listdir, os.access
    def is_it(path): return str(path).endswith(name)
    def no(path): raise PermissionError(13, 'Permission denied', str(path))
    monkeypatch.setattr(io, 'open', lambda p, *a, **k: no(p) if is_it(p) else opened(p, *a, **k))
    monkeypatch.setattr(os, 'scandir', lambda p='.': no(p) if is_it(p) else scanned(p))
    monkeypatch.setattr(os, 'listdir', lambda p='.': no(p) if is_it(p) else listed(p))
    monkeypatch.setattr(os, 'access', lambda p, m, **k: not is_it(p) and rights(p, m, **k))


def test_a_file_without_permission(good, monkeypatch):
    unreadable(monkeypatch, 'cat/03.png')
    assert 'cat/03.png (cannot be opened: Permission denied)' in str(refused(good, BadPictures))


def test_a_folder_without_permission(good, monkeypatch):
    (good/'cat'/'more').mkdir()
    (good/'cat'/'more'/'a.png').write_bytes(encoded('PNG'))
    unreadable(monkeypatch, 'cat/more')
    assert 'cat/more (a folder that cannot be entered)' in str(refused(good, BadPictures))
    assert pictures_of(load(good, on_bad_image='skip')) == 24


def test_the_folder_itself_without_permission(good, monkeypatch):
    unreadable(monkeypatch, '/data')
    assert 'permission' in str(refused(good))


def test_a_name_that_is_not_utf8(good):
    with open(os.fsencode(good/'cat') + b'/\xff.png', 'wb') as f: f.write(encoded('PNG'))
    assert 'cat/\ufffd.png (a name that is not UTF-8)' in str(refused(good, BadPictures))
    assert pictures_of(load(good, on_bad_image='skip')) == 24


def test_names_that_would_spoil_a_terminal(good):
    for name in ('a\x1b[31m\n.png', 200*'x' + '.png'): (good/'cat'/name).touch()
    said = str(refused(good, BadPictures))
    assert said.isprintable() and 'cat/a?[31m?.png (empty file)' in said and len(said) < 500


def test_pictures_of_kinds_that_are_not_read_are_counted(good):
    for o in ('a.jp2', 'b.JP2', 'c.heic', 'notes.txt'): (good/'cat'/o).touch()
    with pytest.warns(UserWarning, match=r"3 files .*'.*data'.* \(\.heic, \.jp2\)"): suite = load(good)
    assert pictures_of(suite) == 24


def test_a_folder_named_by_a_relative_path_may_be_left(good, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    suite = load('data')
    monkeypatch.chdir('/')
    assert len([x for x, _ in Images(suite.train, lambda im: im)]) == len(suite.train)


def test_numbered_class_folders_go_by_number(tmp_path):
    "A list of names is for class 0, 1, 2, ...; by the alphabet, 10 comes before 2."
    for i in range(11):
        (tmp_path/'data'/str(i)).mkdir(parents=True)
        for j in range(4): PIL.Image.new('RGB', (4, 4), (i, j, 0)).save(tmp_path/'data'/str(i)/f'{j}.png')
    suite = load(tmp_path/'data', classnames=[f'w{i}' for i in range(11)])
    for row in undecoded(suite.train):
        assert decode(row['image']).getpixel((0, 0))[0] == int(suite.classnames[row['label']][1:])


# --- parquet

def parquet(path, image=None, label=None, **more):
    "Twelve pictures of two classes, unless told otherwise."
    n = 12
    image = [dict(bytes=encoded('PNG'), path=None)]*n if image is None else image
    pq.write_table(pa.table(dict(image=image, label=[0, 1]*(n//2) if label is None else label, **more)), path)
    return path


LABELS = {
    'missing': [0, 1]*5 + [0, None],
    'not a number': [0., 1.]*5 + [0., float('nan')],
    'negative': [0, 1]*5 + [0, -1],
    'too many': [0, 1]*5 + [0, 7],
    'huge': [0, 1]*5 + [0, 2**60],
    'halves': [0., 1.]*5 + [0., .5],
    'endless': [0., 1.]*5 + [0., float('inf')],
    'yes and no': [True, False]*6,
    'lists': [[0], [1]]*6,
    'objects': [dict(a=0)]*12,
    'bytes': [b'a', b'b']*6,
    'nothing': [None]*12,
}


@pytest.mark.parametrize('kind', LABELS)
def test_bad_labels(kind, tmp_path):
    before = snapshot(tmp_path)
    path = parquet(tmp_path/'a.parquet', label=LABELS[kind])
    assert "labels of split 'train'" in str(refused(path, classnames=NAMES))
    assert set(snapshot(tmp_path)) == set(before) | {str(path)}


IMAGES = {'a path': '/etc/hostname', 'a url': 'http://127.0.0.1:9/a.png', 'up': '../elsewhere.png',
          'not there': 'nowhere.png', 'file url': 'file:' + '///etc/hostname'}


@pytest.mark.parametrize('kind', IMAGES)
def test_paths_in_parquet_that_lead_elsewhere(kind, tmp_path):
    (tmp_path/'elsewhere.png').write_bytes(encoded('PNG'))
    (tmp_path/'in').mkdir()
    rows = [dict(bytes=encoded('PNG'), path=None)]*11 + [dict(bytes=None, path=IMAGES[kind])]
    path = parquet(tmp_path/'in'/'a.parquet', rows)
    says = r'1 of 12 pictures cannot be read: .* \((a link or path that leads out|no such file)'
    assert re.search(says, str(refused(path, classnames=NAMES)))
    assert len(load(path, classnames=NAMES, on_bad_image='skip').skipped) == 1


def test_a_path_in_parquet_is_meant_from_its_folder(tmp_path):
    (tmp_path/'in'/'sub').mkdir(parents=True)
    for i in range(12): PIL.Image.new('RGB', (4, 4), (i, 0, 0)).save(tmp_path/'in'/'sub'/f'{i}.png')
    (tmp_path/'in'/'link.png').symlink_to('sub/0.png')
    paths = [*(f'sub/{i}.png' for i in range(10)), 'link.png', str(tmp_path/'in'/'sub'/'11.png')]
    path = parquet(tmp_path/'in'/'a.parquet', [dict(bytes=None, path=o) for o in paths])
    suite = load(path, classnames=NAMES)
    assert pictures_of(suite) == 12 and suite.train[0]['image'].size == (4, 4)
    assert len([x for x, _ in Images(suite.train, lambda im: im)]) == len(suite.train)


@pytest.mark.parametrize('path', [
    'a\0.png', 'x'*5000 + '.png', '', '.', '~/a.png', '/dev/stdin', 'hf://a/b.png', 'zip://a.png::b.zip',
    'sub/../../in/../elsewhere.png'])
def test_strange_paths_in_parquet(path, tmp_path):
    (tmp_path/'in').mkdir()
    (tmp_path/'elsewhere.png').write_bytes(encoded('PNG'))
    rows = [dict(bytes=encoded('PNG'), path=None)]*11 + [dict(bytes=None, path=path)]
    error = refused(parquet(tmp_path/'in'/'a.parquet', rows), BadPictures, classnames=NAMES)
    assert len(sum(error.bad.values(), [])) == 1
    assert re.search('leads out|no such file|no picture|a folder|cannot be opened', str(error))


def test_a_path_of_a_hub_data_set_stays_in_the_cache(tmp_path, monkeypatch):
    (tmp_path/'cache').mkdir()
    inside, outside = tmp_path/'cache'/'a.png', tmp_path/'elsewhere.png'
    for o in (inside, outside): o.write_bytes(encoded('PNG'))
    columns = dict(image=[str(inside)]*11 + [str(outside)], label=[0, 1]*6)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    ds = datasets.Dataset.from_dict(columns, features=features)
    monkeypatch.setattr(datasets, 'load_dataset', lambda spec: datasets.DatasetDict(train=ds))
    error = refused('someone/cats', BadPictures)
    assert len(sum(error.bad.values(), [])) == 1
    assert 'elsewhere.png (a link or path that leads out' in str(error)


BYTES = {
    'cut short': lambda b: b[:-40],
    'cut in the middle': lambda b: b[:len(b)//2],
    'empty': lambda b: b'',
    'text': lambda b: b'label,image\n0,a.png\n',
    'pickle': lambda b: pickle.dumps(Evil()),
    'noise inside': lambda b: b[:40] + bytes(200) + b[240:],
    'footer length': lambda b: b[:-8] + struct.pack('<I', 2**31) + b[-4:],
}


@pytest.mark.parametrize('kind', BYTES)
def test_parquet_that_is_none(kind, tmp_path):
    path = parquet(tmp_path/'a.parquet')
    path.write_bytes(BYTES[kind](path.read_bytes()))
    assert 'a.parquet' in str(refused(path, classnames=NAMES)) and not Path('executed').exists()


COLUMNS = dict(nothing=[None]*12, words=['a.png']*12, numbers=[1]*12, objects=[dict(a=1)]*12)


@pytest.mark.parametrize('image', COLUMNS.values(), ids=COLUMNS)
def test_image_columns_that_are_none(image, tmp_path):
    refused(parquet(tmp_path/'a.parquet', image), classnames=NAMES)


@pytest.mark.parametrize('name', [
    'a[1]*.parquet', 'what?.parquet', '{a,b}.parquet', 'straße 猫.parquet', '.hidden.parquet', '__a.parquet'])
def test_a_file_name_is_no_pattern(name, tmp_path):
    parquet(tmp_path/'a1.parquet', label=[0]*12)
    assert pictures_of(load(parquet(tmp_path/name), classnames=NAMES)) == 12


NO_FILES = dict(queue=os.mkfifo, folder=os.mkdir, dangling=lambda p: os.symlink('nowhere', p))


@pytest.mark.parametrize('make', NO_FILES.values(), ids=NO_FILES)
@pytest.mark.parametrize('inside', [True, False])
def test_a_parquet_that_is_no_file(make, inside, tmp_path):
    make(tmp_path/'a.parquet')
    spec = tmp_path if inside else tmp_path/'a.parquet'
    assert 'a.parquet' in str(refused(spec, Exception, classnames=NAMES))


def test_a_name_that_datasets_takes_apart(tmp_path):
    assert 'rename it' in str(refused(parquet(tmp_path/'a::b.parquet'), classnames=NAMES))


def test_labels_that_can_be_used(tmp_path):
    for i, labels in enumerate([[0., 1.]*6, np.array([0, 1]*6, np.uint8), ['0', '1']*6]):
        suite = load(parquet(tmp_path/f'{i}.parquet', label=labels), classnames=NAMES)
        assert pictures_of(suite) == 12
        assert suite.classnames == NAMES and set(suite.train['label'][:]) == {0, 1}


def test_numbers_as_words_go_by_number(tmp_path):
    pictures = [encoded('PNG', (4, i + 1)) for i in range(11)]  # as high as their number says
    rows = [dict(bytes=pictures[i % 11], path=None) for i in range(44)]
    path = parquet(tmp_path/'a.parquet', rows, [str(i % 11) for i in range(44)])
    suite = load(path, classnames=[f'w{i}' for i in range(11)])
    for row in undecoded(suite.train):
        assert decode(row['image']).height - 1 == int(suite.classnames[row['label']][1:])


def test_splits_with_labels_of_two_kinds(tmp_path):
    parquet(tmp_path/'train.parquet', label=NAMES*6)
    parquet(tmp_path/'val.parquet')
    assert "labels of split 'val'" in str(refused(tmp_path))
    parquet(tmp_path/'train.parquet')
    parquet(tmp_path/'val.parquet', label=NAMES*6)
    assert "labels of split 'val'" in str(refused(tmp_path, classnames=NAMES))


def test_a_word_that_is_missing(tmp_path):
    for name, word in dict(a=None, b=' ').items():
        path = parquet(tmp_path/f'{name}.parquet', label=NAMES*5 + ['cat', word])
        assert "labels of split 'train'" in str(refused(path))


def test_two_pictures_are_too_few(tmp_path):
    rows = [dict(bytes=encoded('PNG'), path=None)]*2
    assert 'at least two' in str(refused(parquet(tmp_path/'a.parquet', rows, NAMES)))


# --- suite.json and class names

ID = dict(kind='id', metric='accuracy')
META = dict(name='x', train='train', val='val', splits=dict(test=ID))
BAD_META = {
    'list': '[]',
    'cut': '{',
    'deep': '['*100_000,
    'no train': dict(META, train=None),
    'path': dict(META, train='../../etc/x'),
    'rooted': dict(META, val='/etc/x'),
    'dots': dict(META, train='..'),
    'windows': dict(META, train='a\\b'),
    'no splits': dict(META, splits=None),
    'list of splits': dict(META, splits=['test']),
    'split path': dict(META, splits={'../x': ID}),
    'no kind': dict(META, splits=dict(test=dict(metric='accuracy'))),
    'more': dict(META, splits=dict(test=dict(ID, data='x'))),
    'train among splits': dict(META, splits=dict(train=ID)),
    'unknown kind': dict(META, splits=dict(test=dict(ID, kind='close'))),
    'unknown metric': dict(META, splits=dict(test=dict(ID, metric='recall'))),
    'empty': {},
    'no val': {k: v for k, v in META.items() if k != 'val'},
    'split rooted': dict(META, splits={'/etc/x': ID}),
    'name': dict(META, name=['x']),
    'brace': dict(META, templates=['a {0.__class__}']),
    'no word': dict(META, templates=['a photo']),
    'numbers': dict(META, classnames=[1, 2]),
    'text': dict(META, classnames='cat'),
    'one template': dict(META, templates='a {}'),
}


@pytest.mark.parametrize('kind', BAD_META)
def test_suite_json(kind, tmp_path):
    for o in ('train', 'val', 'test'): parquet(tmp_path/f'{o}.parquet')
    meta = BAD_META[kind]
    (tmp_path/'suite.json').write_text(meta if isinstance(meta, str) else json.dumps(meta))
    assert 'suite.json' in str(refused(tmp_path))


@pytest.mark.parametrize('text, says', [
    ('{', 'not valid JSON'), ('['*100_000, 'not valid JSON'),
    ('3', 'must hold a list'), ('[1, 2]', 'must hold a list'),
    ('["cat", " "]', 'class 1 has no name'), ('["cat"]', '1 class names'),
    ('{"cat": "Katze"}', "no entry for 'dog'")])
def test_class_name_files(text, says, good, tmp_path):
    (tmp_path/'names.json').write_text(text)
    assert says in str(refused(good, classnames=str(tmp_path/'names.json')))


TEMPLATES = ['a photo', ['a {}', 'a {'], ['{0.__class__}'], 'a {} and {}', [3]]


@pytest.mark.parametrize('templates', TEMPLATES, ids=str)
def test_templates(templates, good): assert 'template' in str(refused(good, templates=templates))


@pytest.mark.parametrize('names', [['cat', None], ['cat', ['dog']], dict(cat='cat', dog=None), 3], ids=str)
def test_class_names_that_are_no_words(names, good):
    assert 'class names' in str(refused(good, classnames=names))


def test_names_that_become_the_same(good, tmp_path):
    for c in ('sea_lion', 'sea lion'):
        (good/c).mkdir()
        for i in range(6): (good/c/f'{i}.png').write_bytes(encoded('PNG'))
    with pytest.warns(UserWarning, match="share a name, such as 'sea lion'"): suite = load(good)
    assert suite.classnames == ['cat', 'dog', 'sea lion', 'sea lion']
    other = tmp_path/'other'/'test'
    for c in ('cat', 'sea_lion'):
        (other/c).mkdir(parents=True)
        (other/c/'a.png').write_bytes(encoded('PNG'))
    with pytest.warns(UserWarning): error = refused(good, suite=str(other))
    assert "'sea lion'" in str(error)  # which of the two?
    (good/'Dog').mkdir()
    (good/'Dog'/'a.png').write_bytes(encoded('PNG'))
    with pytest.warns(UserWarning, match='4 classes share a name'): load(good)


STRANGE = ['猫', '$x^{$', '<script>alert(1)</script>', 'a|b', '..', '_', '{}', 'a\nb', 'x'*5000,
           "O'Hara; rm -rf *", '%s', 'C:\\x', '../../x']


def test_names_pass_unharmed(tmp_path):
    label = STRANGE*6
    rows = [dict(bytes=encoded('PNG'), path='<b>|.png')]*len(label)
    path = parquet(tmp_path/'a.parquet', rows, pa.array(label))
    before = snapshot(tmp_path)
    suite = load(path)
    want = [' '.join((o.replace('_', ' ').strip() or o).split()) for o in STRANGE]
    assert sorted(suite.classnames) == sorted(want)
    assert len(suite.classnames) == len(STRANGE) and any('<script>' in o for o in suite.classnames)
    plt.close(show_pictures(suite.train, 13, suite.classnames, title='$x^{$'))
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # a font's
        shown = show_pictures(suite.train, 40, suite.classnames, title='$x^{$')
        shown.savefig(io.BytesIO())
    titles = {o.get_text() for o in shown.axes[0].texts}
    assert [o.get_text() for o in shown.texts] == ['$x^{$']
    assert any(o.startswith('xxx') and '...' in o for o in titles)
    assert max(map(len, titles)) == 40
    suite.name = suite.splits['test'].metric = '<script>'
    suite.splits['test'].name = '<i>|'
    said = suite._repr_markdown_()
    assert '<script>' not in said and '&lt;i&gt;&#124;' in said and snapshot(tmp_path) == before


# --- the fingerprint

def prints(spec): return load(spec).fingerprint


def test_the_fingerprint_is_of_what_is_used(good, tmp_path):
    "Not of names, times, or the kind of file; without what is skipped."
    first = prints(good)
    assert set(first) == {'train', 'val', 'test'} and len(set(first.values())) == 3
    assert all(re.fullmatch('[0-9a-f]{64}', o) for o in first.values())
    good = good.rename(tmp_path/'moved')
    os.utime(good/'cat'/'00.png', (1, 1))
    (good/'cat'/'notes.txt').touch()
    assert prints(good) == first
    files = [(o, i) for i, c in enumerate(NAMES) for o in sorted((good/c).glob('*.png'))]
    for parts in ([slice(None)], [slice(10), slice(10, None)]):
        (place := tmp_path/f'shards{len(parts)}').mkdir()
        for i, part in enumerate(parts):
            rows = [dict(bytes=o.read_bytes(), path=None) for o, _ in files[part]]
            name = f'train-{i:05}-of-{len(parts):05}.parquet'
            parquet(place/name, rows, [NAMES[c] for _, c in files[part]])
        assert prints(place) == first
    (good/'cat'/'zz.png').touch()
    suite = load(good, on_bad_image='skip')
    assert suite.fingerprint['val'] and suite.skipped and set(suite.fingerprint) == set(first)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_byte_changes_the_fingerprint(good, data):
    raw = data.draw(st.sampled_from([encoded('PPM'), encoded('BMP', mode='RGB')]))
    at, by = data.draw(st.integers(60, len(raw) - 1)), data.draw(st.integers(1, 255))
    other = raw[:at] + bytes([raw[at] ^ by]) + raw[at + 1:]
    (good/'cat'/'07.png').write_bytes(raw)
    first = prints(good)
    (good/'cat'/'07.png').write_bytes(other)
    changed = [k for k, o in prints(good).items() if o != first[k]]
    assert len(changed) == 1
