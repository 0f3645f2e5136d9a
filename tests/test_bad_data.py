"Pictures, labels and files that are not what they should be: each is refused or skipped as promised, and nothing is left behind."
import io, json, os, pickle, re, socket, struct, threading, time, warnings, zipfile, zlib
from pathlib import Path

import datasets
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image, PIL.ImageOps
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sae_ft import data as D, trainer
from sae_ft.data import Images, show_pictures
from sae_ft.screening import BadPictures
from sae_ft.sources import read_data
from sae_ft.suites import load_suite
from sae_ft.plumbing.pictures import FORMATS, MAX_PIXELS, BadPicture, decode, to_rgb

@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    "The cache of parquet and the working folder are the test's own."
    (tmp_path/'cwd').mkdir()
    monkeypatch.chdir(tmp_path/'cwd')
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path/'cache')

def encoded(kind, size=(16, 16), mode='RGB', **how):
    "A noisy picture as a file of that kind."
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(noise).convert(mode).save(out, kind, **how)
    return out.getvalue()

def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
def png(width, height, pixels=b'', before=b''): return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)) + before + chunk(b'IDAT', zlib.compress(pixels)) + chunk(b'IEND', b'')
def zipped():
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z: z.writestr('a.png', encoded('PNG'))
    return out.getvalue()

class Evil:
    def __reduce__(self): return os.system, ('touch executed',)

UNKNOWN, CUT, BROKEN = 'no picture of a known kind', 'truncated|damaged', 'damaged|truncated|no picture of a known kind'
FILES = {
    'cut.png': (encoded('PNG')[:300], CUT), 'cut.jpg': (encoded('JPEG', (64, 64))[:700], CUT), 'cut.gif': (encoded('GIF')[:300], BROKEN), 'cut.webp': (encoded('WEBP')[:60], BROKEN),
    'cut.tiff': (encoded('TIFF')[:200], BROKEN), 'cut.bmp': (encoded('BMP')[:200], CUT), 'cut.ppm': (encoded('PPM')[:200], CUT), 'header only.png': (encoded('PNG')[:33], BROKEN),
    'empty.png': (b'', 'empty file'), 'empty.jpg': (b'', 'empty file'), 'text.jpg': (b'dear reader, this is no picture', UNKNOWN), 'page.png': (b'<html><body>404 Not Found</body></html>', UNKNOWN),
    'print.png': (b'%PDF-1.7\n1 0 obj\n', UNKNOWN), 'program.png': (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n', UNKNOWN),
    'drawing.png': (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', UNKNOWN), 'archive.jpg': (zipped(), UNKNOWN), 'pickle.png': (pickle.dumps(Evil()), UNKNOWN),
    'array.png': (b'\x93NUMPY\x01\x00' + b'v\x00' + b' '*118, UNKNOWN), 'noise.jpg': (np.random.default_rng(1).bytes(500), UNKNOWN), 'zeros.png': (bytes(500), UNKNOWN),
    'bomb.png': (png(40_000, 40_000), 'too large'), 'large.png': (png(9_500, 9_500), r'too large \(90,250,000 pixels; at most 89,478,485\)'), 'bomb.gif': (b'GIF89a' + struct.pack('<HHBBB', 65535, 65535, 0, 0, 0) + b',' + struct.pack('<HHHHB', 0, 0, 65535, 65535, 0) + b'\x02\x00;', 'too large'),
    'bomb.ppm': (b'P6 100000 100000 255\n', 'too large'), 'bomb.bmp': (encoded('BMP')[:18] + struct.pack('<ii', 60_000, 60_000) + encoded('BMP')[26:], 'too large'),
    'text bomb.png': (png(4, 4, bytes(52), chunk(b'zTXt', b'a\0\0' + zlib.compress(bytes(50_000_000)))), BROKEN), 'no width.png': (png(0, 4), BROKEN), 'no pixels.png': (png(4, 4), CUT),
    'middle.png': (encoded('PNG')[:60] + bytes(200) + encoded('PNG')[260:], BROKEN), 'other layout.tiff': (b'II*\0\x08\0\0\0' + bytes(40), BROKEN),
}
def fifo(path): os.mkfifo(path)
def a_socket(path):
    was = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(was)
PLACES = {
    'queue.png': (fifo, 'not a file'), 'socket.png': (a_socket, 'not a file'), 'dangling.png': (lambda p: p.symlink_to('nowhere.png'), 'no such file'), 'myself.png': (lambda p: p.symlink_to(p), 'no such file|cannot be opened'),
    'out.png': (lambda p: p.symlink_to(elsewhere(p)), 'leads out of the data set'), 'up.png': (lambda p: p.symlink_to('../../elsewhere.png'), 'leads out|no such file'), 'linked folder': (lambda p: p.symlink_to(elsewhere(p).parent), 'leads out of the data set'),
    'device.png': (lambda p: p.symlink_to('/dev/zero'), 'leads out of the data set'), 'folder.png': (lambda p: p.mkdir(), 'a folder'), 'one.png': (lambda p: os.truncate(os.open(p, os.O_CREAT | os.O_WRONLY), 2**40), r'too large \(1,099,511,627,776 bytes')}
def elsewhere(p):
    place = p.parents[2]/'elsewhere'
    place.mkdir(exist_ok=True)
    (place/'a.png').write_bytes(encoded('PNG'))
    return place/'a.png'

@pytest.fixture
def good(tmp_path):
    "A folder with twelve good pictures of each of two classes."
    for c in ('cat', 'dog'):
        (tmp_path/'data'/c).mkdir(parents=True)
        for i in range(12): PIL.Image.new('RGB', (8, 8), (20*i, 3, 9)).save(tmp_path/'data'/c/f'{i:02}.png')
    return tmp_path/'data'

def snapshot(tmp_path): return {str(o): (o.lstat().st_mtime_ns, o.lstat().st_size) for o in tmp_path.rglob('*') if 'cache' not in o.parts}

def refused(spec, error=ValueError, **kw):
    "The one sentence that it is refused with, at once, leaving everything as it was."
    t, place = time.time(), Path(spec) if os.path.isdir(spec) else Path(spec).parent
    before = snapshot(place)
    with pytest.raises((ValueError, FileNotFoundError)) as e: load_suite(str(spec), progress=False, **kw)
    assert '\n' not in str(e.value) and time.time() - t < 10 and isinstance(e.value, error)
    assert snapshot(place) == before
    return e.value

@pytest.mark.parametrize('name', [*FILES, *PLACES])
def test_a_bad_picture_is_refused_or_skipped(name, good, tmp_path):
    path = good/'cat'/name
    if name in FILES: path.write_bytes(FILES[name][0])
    else: PLACES[name][0](path)
    reason = (FILES.get(name) or PLACES[name])[1]
    before = snapshot(tmp_path)
    error = refused(good, BadPictures)
    assert re.fullmatch(rf"1 of 25 pictures cannot be read: cat/{re.escape(name)} \(.*({reason}).*\); repair or delete it, or set on_bad_image to 'skip'\.", str(error)), error
    suite = load_suite(str(good), progress=False, on_bad_image='skip')
    assert len(suite.train) + len(suite.val) + len(suite.splits['test'].data) == 24 and suite.skipped == error.bad and len(sum(suite.skipped.values(), [])) == 1
    assert snapshot(tmp_path) == before and not Path('executed').exists()

def test_many_bad_pictures_are_listed_and_counted(good):
    for i in range(12): (good/'dog'/f'{i:02}.png').write_bytes(b'')
    error = refused(good, BadPictures)
    assert str(error).startswith('12 of 24 pictures cannot be read: dog/') and str(error).count('(empty file)') == 10 and ' and 2 more; repair' in str(error)
    assert sorted(sum(error.bad.values(), [])) == [f'dog/{i:02}.png (empty file)' for i in range(12)] and set(error.bad) <= {'train', 'val', 'test'}

def test_nothing_left_of_a_class_or_of_all(good):
    for i in range(12): (good/'dog'/f'{i:02}.png').write_bytes(b'')
    assert 'one class only' in str(refused(good, on_bad_image='skip')) or 'no picture of split' in str(refused(good, on_bad_image='skip'))
    (good/'fish').mkdir()
    for i in range(12): (good/'fish'/f'{i}.png').write_bytes(encoded('PNG'))
    with pytest.warns(UserWarning, match="classes without a training picture that can be read: 'dog'"): suite = load_suite(str(good), progress=False, on_bad_image='skip')
    assert suite.classnames == ['cat', 'dog', 'fish'] and set(suite.train['label'][:]) == {0, 2}

def test_nothing_left_of_a_split(good, tmp_path):
    (tmp_path/'own'/'val'/'cat').mkdir(parents=True)
    good.rename(tmp_path/'own'/'train')
    (tmp_path/'own'/'val'/'cat'/'a.png').touch()
    assert "no picture of split 'val' can be read: the first is val/cat/a.png (empty file)" in str(refused(tmp_path/'own', on_bad_image='skip'))

# --- odd, but good

def exif(value):
    e = PIL.Image.Exif()
    e[0x0112] = value
    return e
def animated(kind):
    out, frames = io.BytesIO(), [PIL.Image.new('RGB', (8, 8), o) for o in ('red', 'blue')]
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], **({'lossless': True} if kind == 'WEBP' else {}))
    return out.getvalue()
def saved(im, kind, **how):
    out = io.BytesIO()
    im.save(out, kind, **how)
    return out.getvalue()
def tall():
    im = PIL.Image.new('RGB', (4, 8), 'white')
    im.paste('black', (0, 0, 4, 2))  # above
    return im
def glass():
    im = PIL.Image.new('RGBA', (8, 8), (0, 0, 0, 0))
    im.paste((255, 0, 0, 255), (0, 0, 4, 8))
    return im
ODD = {
    'cmyk.jpg': (saved(PIL.Image.new('CMYK', (8, 8), (0, 255, 255, 0)), 'JPEG', quality=100), (1, 1), (255, 0, 0)), 'deep.png': (saved(PIL.Image.fromarray(np.full((8, 8), 257*128, np.uint16)), 'PNG'), (1, 1), (128, 128, 128)),
    'palette.png': (saved(glass().quantize(4), 'PNG'), (6, 1), (255, 255, 255)), 'glass.png': (saved(glass(), 'PNG'), (1, 1), (255, 0, 0)), 'grey glass.png': (saved(PIL.Image.new('LA', (8, 8), (0, 0)), 'PNG'), (1, 1), (255, 255, 255)),
    'moving.gif': (animated('GIF'), (1, 1), (255, 0, 0)), 'moving.webp': (animated('WEBP'), (1, 1), (255, 0, 0)), 'moving.png': (animated('PNG'), (1, 1), (255, 0, 0)),
    'on its side.jpg': (saved(tall().transpose(PIL.Image.Transpose.ROTATE_90), 'JPEG', exif=exif(6), quality=100), (1, 0), (0, 0, 0)), 'odd side.jpg': (saved(tall(), 'JPEG', exif=exif(99), quality=100), (1, 0), (0, 0, 0)),
    'exif noise.jpg': (saved(tall(), 'JPEG', exif=b'Exif\0\0' + b'\xff'*40, quality=100), (1, 0), (0, 0, 0)), 'point.png': (saved(PIL.Image.new('RGB', (1, 1), 'blue'), 'PNG'), (0, 0), (0, 0, 255)),
    'thread.png': (saved(PIL.Image.new('RGB', (1, 3000), 'blue'), 'PNG'), (0, 2999), (0, 0, 255)), 'really a png.jpg': (saved(tall(), 'PNG'), (1, 7), (255, 255, 255)), 'LOUD.PNG': (saved(tall(), 'PNG'), (1, 0), (0, 0, 0)), 'one bit.png': (saved(PIL.Image.new('1', (8, 8), 1), 'PNG'), (1, 1), (255, 255, 255))}

@pytest.mark.parametrize('name', ODD)
def test_an_odd_picture_comes_out_right(name, good):
    raw, at, want = ODD[name]
    (good/'cat'/name).write_bytes(raw)
    suite = load_suite(str(good), progress=False)
    assert not suite.skipped and sum(map(len, (suite.train, suite.val, suite.splits['test'].data))) == 25
    im = decode(dict(bytes=None, path=str(good/'cat'/name)))
    assert im.mode == 'RGB' and np.abs(np.array(im.getpixel(at)) - want).max() < 12 and (im.size == (4, 8) if 'side' in name else True)

@pytest.mark.parametrize('orientation', range(1, 9))
def test_every_orientation(orientation):
    "The dark end of a picture is above after all, however the camera was held."
    back = {1: None, 2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_90', 7: 'TRANSVERSE', 8: 'ROTATE_270'}[orientation]
    im = tall() if back is None else tall().transpose(PIL.Image.Transpose[back])
    for raw in (saved(im, 'JPEG', exif=exif(orientation), quality=100), saved(im, 'PNG', exif=exif(orientation)), saved(im, 'WEBP', exif=exif(orientation), lossless=True), saved(im, 'TIFF', exif=exif(orientation))):
        out = decode(raw)
        assert out.size == (4, 8) and out.getpixel((1, 0))[0] < 60 and out.getpixel((1, 7))[0] > 200

def test_an_orientation_among_damaged_notes_counts():
    "Pillow's own `exif_transpose` fails on these, for the tag beside it."
    notes = bytes.fromhex('45786966 00004d4d 002a0000 00080006 01420002 00000007 00000056 01120003 00000001 00060000 011a0005 00000001 0000005e 01320002 00000005 00000066'
                          '87690004 00000001 0000006c 88250004 00000001 00000086 00000000 61207465 78740000 00000003 00000002 32303230 00000001 829a000c 00000001 0000007e 00000000'
                          '3fe00000 00000000 00010001 00020000 00024e00 00000000 0000')
    raw = saved(tall().transpose(PIL.Image.Transpose.ROTATE_90), 'JPEG', exif=notes, quality=100)
    with pytest.raises(Exception): PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(raw)))
    assert decode(raw).size == (4, 8)

def test_sixteen_bits_keep_their_levels():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    want = ramp//257  # 65535 becomes 255, and what lies between two levels the lower one
    for kind in ('PNG', 'TIFF', 'PPM'): assert (np.asarray(decode(saved(PIL.Image.fromarray(ramp), kind)))[..., 0] == want).all(), kind
    for mode, kind in (('I;16B', '>u2'), ('I', 'i4')): assert (np.asarray(to_rgb(PIL.Image.frombytes(mode, (256, 256), ramp.astype(kind).tobytes())))[..., 1] == want).all(), mode
    assert to_rgb(PIL.Image.new('I', (1, 1), 10**6)).getpixel((0, 0)) == (255,)*3 and to_rgb(PIL.Image.new('I', (1, 1), -5)).getpixel((0, 0)) == (0,)*3

def noisy_files():
    "Pictures that Pillow reads with a warning, or refuses with one."
    cut = saved(tall(), 'JPEG', exif=exif(6).tobytes()[:-9], quality=100)
    scan = saved(tall(), 'TIFF')
    return [cut, png(9_500, 9_500), png(40_000, 40_000), *[scan[:n] for n in range(20, len(scan), 7)]]

def test_no_warning_of_pillow_gets_out_and_none_is_an_error():
    "Whatever the user's filters are: shown, or made errors; and the filters are as before."
    files = noisy_files()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        first = [why(o) for o in files]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        before = list(warnings.filters)
        assert [why(o) for o in files] == first and warnings.filters == before
    assert not seen and first[0] == 'RGB'

def test_filters_are_as_before_after_many_threads():
    before, files = list(warnings.filters), noisy_files()
    threads = [threading.Thread(target=lambda: [why(o) for o in 4*files]) for _ in range(6)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert warnings.filters == before

def test_an_icon_larger_than_it_says():
    "An .ico says 16 x 16; the PNG in it says what it likes."
    inner = png(9_500, 9_500)
    assert why(struct.pack('<HHH', 0, 1, 1) + struct.pack('<BBBBHHII', 16, 16, 0, 0, 1, 32, len(inner), 22) + inner).startswith('too large (90,250,000 pixels')
    assert why(png(40_000, 40_000)) == f'too large (1,600,000,000 pixels; at most {MAX_PIXELS:,})'

# --- folders

def pictures_of(suite): return sum(map(len, (suite.train, suite.val, *(o.data for o in suite.splits.values()))))

def test_links_within_are_followed_and_loops_are_not(good):
    (good/'cat'/'again').symlink_to('.'); (good/'cat'/'above').symlink_to('..'); (good/'cat'/'other').symlink_to(good/'cat'/'other2'); (good/'cat'/'other2').symlink_to('other')
    assert pictures_of(load_suite(str(good), progress=False)) == 24  # a loop brings nothing, least of all the other class
    (good/'cat'/'00 copy.png').symlink_to('00.png'); (good/'fish').symlink_to('dog')
    suite = load_suite(str(good), progress=False)
    assert suite.classnames == ['cat', 'dog', 'fish'] and pictures_of(suite) == 37
    (good.parent/'link').symlink_to(good)
    assert load_suite(str(good.parent/'link'), progress=False).fingerprint == suite.fingerprint

def test_many_links_to_one_folder_take_no_time(good):
    for i in range(30):
        (good/'cat'/f'd{i}').mkdir()
        if i: [(good/'cat'/f'd{i - 1}'/o).symlink_to(f'../d{i}') for o in 'xy']
    t = time.time()
    assert pictures_of(load_suite(str(good), progress=False)) == 24 and time.time() - t < 5

def test_a_link_to_all_pictures_of_a_split(good, tmp_path):
    (tmp_path/'own'/'train').mkdir(parents=True)
    good.rename(tmp_path/'own'/'train'/'x'); (tmp_path/'own'/'val').symlink_to(tmp_path/'own'/'train'/'x')
    assert 'one class only' in str(refused(tmp_path/'own')) or 'other class' in str(refused(tmp_path/'own'))

def unreadable(monkeypatch, name):
    "As if the rights to a file or folder were missing (tests may run as root, who has all)."
    opened, scanned, listed = open, os.scandir, os.listdir
    def no(path): raise PermissionError(13, 'Permission denied', str(path))
    monkeypatch.setattr(io, 'open', lambda p, *a, **k: no(p) if str(p).endswith(name) else opened(p, *a, **k))
    monkeypatch.setattr(os, 'scandir', lambda p='.': no(p) if str(p).endswith(name) else scanned(p))
    monkeypatch.setattr(os, 'listdir', lambda p='.': no(p) if str(p).endswith(name) else listed(p))
    rights = os.access
    monkeypatch.setattr(os, 'access', lambda p, m, **k: not str(p).endswith(name) and rights(p, m, **k))

def test_a_file_without_permission(good, monkeypatch):
    unreadable(monkeypatch, 'cat/03.png')
    assert 'cat/03.png (cannot be opened: Permission denied)' in str(refused(good, BadPictures))

def test_a_folder_without_permission(good, monkeypatch):
    (good/'cat'/'more').mkdir(); (good/'cat'/'more'/'a.png').write_bytes(encoded('PNG'))
    unreadable(monkeypatch, 'cat/more')
    assert 'cat/more (a folder that cannot be entered)' in str(refused(good, BadPictures))
    assert pictures_of(load_suite(str(good), progress=False, on_bad_image='skip')) == 24

def test_the_folder_itself_without_permission(good, monkeypatch):
    unreadable(monkeypatch, '/data')
    assert 'permission' in str(refused(good))

def test_a_name_that_is_not_utf8(good):
    with open(os.fsencode(good/'cat') + b'/\xff.png', 'wb') as f: f.write(encoded('PNG'))
    assert 'cat/\ufffd.png (a name that is not UTF-8)' in str(refused(good, BadPictures))
    assert pictures_of(load_suite(str(good), progress=False, on_bad_image='skip')) == 24

def test_names_that_would_spoil_a_terminal(good):
    (good/'cat'/'a\x1b[31m\n.png').touch(); (good/'cat'/(200*'x' + '.png')).touch()
    said = str(refused(good, BadPictures))
    assert said.isprintable() and 'cat/a?[31m?.png (empty file)' in said and len(said) < 500

def test_pictures_of_kinds_that_are_not_read_are_counted(good):
    for o in ('a.jp2', 'b.JP2', 'c.heic', 'notes.txt'): (good/'cat'/o).touch()
    with pytest.warns(UserWarning, match=r"3 files .*'.*data'.* \(\.heic, \.jp2\)"): suite = load_suite(str(good), progress=False)
    assert pictures_of(suite) == 24

def test_a_folder_named_by_a_relative_path_may_be_left(good, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    suite = load_suite('data', progress=False)
    monkeypatch.chdir('/')
    assert len([x for x, _ in Images(suite.train, lambda im: im)]) == len(suite.train)

def test_numbered_class_folders_go_by_number(tmp_path):
    "A list of names is for class 0, 1, 2, ...; by the alphabet, 10 comes before 2."
    for i in range(11):
        (tmp_path/'data'/str(i)).mkdir(parents=True)
        for j in range(4): PIL.Image.new('RGB', (4, 4), (i, j, 0)).save(tmp_path/'data'/str(i)/f'{j}.png')
    words = [f'w{i}' for i in range(11)]
    suite = load_suite(str(tmp_path/'data'), classnames=words, progress=False)
    assert all(decode(r['image']).getpixel((0, 0))[0] == int(suite.classnames[r['label']][1:]) for r in D._raw(suite.train))

# --- parquet

def parquet(path, image=None, label=None, **more):
    n = 12
    image = [dict(bytes=encoded('PNG'), path=None)]*n if image is None else image
    pq.write_table(pa.table(dict(image=image, label=[0, 1]*(n//2) if label is None else label, **more)), path)
    return path

LABELS = {'missing': [0, 1]*5 + [0, None], 'not a number': [0., 1.]*5 + [0., float('nan')], 'negative': [0, 1]*5 + [0, -1], 'too many': [0, 1]*5 + [0, 7], 'huge': [0, 1]*5 + [0, 2**60], 'halves': [0., 1.]*5 + [0., .5], 'endless': [0., 1.]*5 + [0., float('inf')],
          'yes and no': [True, False]*6, 'lists': [[0], [1]]*6, 'objects': [dict(a=0)]*12, 'bytes': [b'a', b'b']*6, 'nothing': [None]*12}
@pytest.mark.parametrize('kind', LABELS)
def test_bad_labels(kind, tmp_path):
    before = snapshot(tmp_path)
    path = parquet(tmp_path/'a.parquet', label=LABELS[kind])
    assert "labels of split 'train'" in str(refused(path, classnames=['cat', 'dog']))
    assert set(snapshot(tmp_path)) == set(before) | {str(path)}

IMAGES = {'a path': '/etc/hostname', 'a url': 'http://127.0.0.1:9/a.png', 'up': '../elsewhere.png', 'not there': 'nowhere.png', 'file url': 'file:' + '///etc/hostname'}
@pytest.mark.parametrize('kind', IMAGES)
def test_paths_in_parquet_that_lead_elsewhere(kind, tmp_path):
    (tmp_path/'elsewhere.png').write_bytes(encoded('PNG'))
    (tmp_path/'in').mkdir()
    rows = [dict(bytes=encoded('PNG'), path=None)]*11 + [dict(bytes=None, path=IMAGES[kind])]
    path = parquet(tmp_path/'in'/'a.parquet', rows)
    assert re.search(r'1 of 12 pictures cannot be read: .* \((a link or path that leads out|no such file)', str(refused(path, classnames=['cat', 'dog'])))
    assert len(load_suite(str(path), classnames=['cat', 'dog'], on_bad_image='skip', progress=False).skipped) == 1

def test_a_path_in_parquet_is_meant_from_its_folder(tmp_path):
    (tmp_path/'in'/'sub').mkdir(parents=True)
    for i in range(12): PIL.Image.new('RGB', (4, 4), (i, 0, 0)).save(tmp_path/'in'/'sub'/f'{i}.png')
    (tmp_path/'in'/'link.png').symlink_to('sub/0.png')
    rows = [dict(bytes=None, path=f'sub/{i}.png') for i in range(10)] + [dict(bytes=None, path='link.png'), dict(bytes=None, path=str(tmp_path/'in'/'sub'/'11.png'))]
    suite = load_suite(str(parquet(tmp_path/'in'/'a.parquet', rows)), classnames=['cat', 'dog'], progress=False)
    assert pictures_of(suite) == 12 and len([x for x, _ in Images(suite.train, lambda im: im)]) == len(suite.train) and suite.train[0]['image'].size == (4, 4)

@pytest.mark.parametrize('path', ['a\0.png', 'x'*5000 + '.png', '', '.', '~/a.png', '/dev/stdin', 'hf://a/b.png', 'zip://a.png::b.zip', 'sub/../../in/../elsewhere.png'])
def test_strange_paths_in_parquet(path, tmp_path):
    (tmp_path/'in').mkdir(); (tmp_path/'elsewhere.png').write_bytes(encoded('PNG'))
    rows = [dict(bytes=encoded('PNG'), path=None)]*11 + [dict(bytes=None, path=path)]
    error = refused(parquet(tmp_path/'in'/'a.parquet', rows), BadPictures, classnames=['cat', 'dog'])
    assert len(sum(error.bad.values(), [])) == 1 and re.search('leads out|no such file|no picture|a folder|cannot be opened', str(error))

def test_a_path_of_a_hub_data_set_stays_in_the_cache(tmp_path, monkeypatch):
    (tmp_path/'elsewhere.png').write_bytes(encoded('PNG')); (tmp_path/'cache').mkdir(); (tmp_path/'cache'/'a.png').write_bytes(encoded('PNG'))
    paths = [str(tmp_path/'cache'/'a.png')]*11 + [str(tmp_path/'elsewhere.png')]
    ds = datasets.Dataset.from_dict(dict(image=paths, label=[0, 1]*6), features=datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=['cat', 'dog'])))
    monkeypatch.setattr(datasets, 'load_dataset', lambda spec: datasets.DatasetDict(train=ds))
    error = refused('someone/cats', BadPictures)
    assert len(sum(error.bad.values(), [])) == 1 and 'elsewhere.png (a link or path that leads out' in str(error)

BYTES = {'cut short': lambda b: b[:-40], 'cut in the middle': lambda b: b[:len(b)//2], 'empty': lambda b: b'', 'text': lambda b: b'label,image\n0,a.png\n', 'pickle': lambda b: pickle.dumps(Evil()), 'noise inside': lambda b: b[:40] + bytes(200) + b[240:], 'footer length': lambda b: b[:-8] + struct.pack('<I', 2**31) + b[-4:]}
@pytest.mark.parametrize('kind', BYTES)
def test_parquet_that_is_none(kind, tmp_path):
    path = parquet(tmp_path/'a.parquet')
    path.write_bytes(BYTES[kind](path.read_bytes()))
    assert 'a.parquet' in str(refused(path, classnames=['cat', 'dog'])) and not Path('executed').exists()

@pytest.mark.parametrize('image', [[None]*12, ['a.png']*12, [1]*12, [dict(a=1)]*12], ids=['nothing', 'words', 'numbers', 'objects'])
def test_image_columns_that_are_none(image, tmp_path):
    refused(parquet(tmp_path/'a.parquet', image), classnames=['cat', 'dog'])

@pytest.mark.parametrize('name', ['a[1]*.parquet', 'what?.parquet', '{a,b}.parquet', 'straße 猫.parquet', '.hidden.parquet', '__a.parquet'])
def test_a_file_name_is_no_pattern(name, tmp_path):
    parquet(tmp_path/'a1.parquet', label=[0]*12)
    suite = load_suite(str(parquet(tmp_path/name)), classnames=['cat', 'dog'], progress=False)
    assert sum(map(len, (suite.train, suite.val, suite.splits['test'].data))) == 12

@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir, lambda p: os.symlink('nowhere', p)], ids=['queue', 'folder', 'dangling'])
@pytest.mark.parametrize('inside', [True, False])
def test_a_parquet_that_is_no_file(make, inside, tmp_path):
    make(tmp_path/'a.parquet')
    assert 'a.parquet' in str(refused(tmp_path if inside else tmp_path/'a.parquet', Exception, classnames=['cat', 'dog']))

def test_a_name_that_datasets_takes_apart(tmp_path): assert 'rename it' in str(refused(parquet(tmp_path/'a::b.parquet'), classnames=['cat', 'dog']))

def test_labels_that_can_be_used(tmp_path):
    for i, labels in enumerate([[0., 1.]*6, np.array([0, 1]*6, np.uint8), ['0', '1']*6]):
        assert pictures_of(suite := load_suite(str(parquet(tmp_path/f'{i}.parquet', label=labels)), classnames=['cat', 'dog'], progress=False)) == 12
        assert suite.classnames == ['cat', 'dog'] and set(suite.train['label'][:]) == {0, 1}

def test_numbers_as_words_go_by_number(tmp_path):
    colours = [encoded('PNG', (4, i + 1)) for i in range(11)]
    path = parquet(tmp_path/'a.parquet', [dict(bytes=colours[i % 11], path=None) for i in range(44)], [str(i % 11) for i in range(44)])
    suite = load_suite(str(path), classnames=[f'w{i}' for i in range(11)], progress=False)
    assert all(decode(r['image']).height - 1 == int(suite.classnames[r['label']][1:]) for r in D._raw(suite.train))

def test_splits_with_labels_of_two_kinds(tmp_path):
    parquet(tmp_path/'train.parquet', label=['cat', 'dog']*6); parquet(tmp_path/'val.parquet')
    assert "labels of split 'val'" in str(refused(tmp_path))
    parquet(tmp_path/'train.parquet'); parquet(tmp_path/'val.parquet', label=['cat', 'dog']*6)
    assert "labels of split 'val'" in str(refused(tmp_path, classnames=['cat', 'dog']))

def test_a_word_that_is_missing(tmp_path):
    assert "labels of split 'train'" in str(refused(parquet(tmp_path/'a.parquet', label=['cat', 'dog']*5 + ['cat', None])))
    assert "labels of split 'train'" in str(refused(parquet(tmp_path/'b.parquet', label=['cat', 'dog']*5 + ['cat', ' '])))

def test_two_pictures_are_too_few(tmp_path):
    rows = [dict(bytes=encoded('PNG'), path=None)]*2
    assert 'at least two' in str(refused(parquet(tmp_path/'a.parquet', rows, ['cat', 'dog'])))

# --- suite.json and class names

META = dict(name='x', train='train', val='val', splits=dict(test=dict(kind='id', metric='accuracy')))
BAD_META = {'list': '[]', 'cut': '{', 'deep': '['*100_000, 'no train': dict(META, train=None), 'path': dict(META, train='../../etc/x'), 'rooted': dict(META, val='/etc/x'), 'dots': dict(META, train='..'), 'windows': dict(META, train='a\\b'), 'no splits': dict(META, splits=None),
            'list of splits': dict(META, splits=['test']), 'split path': dict(META, splits={'../x': dict(kind='id', metric='accuracy')}), 'no kind': dict(META, splits=dict(test=dict(metric='accuracy'))), 'more': dict(META, splits=dict(test=dict(kind='id', metric='accuracy', data='x'))),
            'train among splits': dict(META, splits=dict(train=dict(kind='id', metric='accuracy'))), 'unknown kind': dict(META, splits=dict(test=dict(kind='close', metric='accuracy'))), 'unknown metric': dict(META, splits=dict(test=dict(kind='id', metric='recall'))),
            'empty': {}, 'no val': {k: v for k, v in META.items() if k != 'val'}, 'split rooted': dict(META, splits={'/etc/x': dict(kind='id', metric='accuracy')}), 'name': dict(META, name=['x']), 'brace': dict(META, templates=['a {0.__class__}']), 'no word': dict(META, templates=['a photo']),
            'numbers': dict(META, classnames=[1, 2]), 'text': dict(META, classnames='cat'), 'one template': dict(META, templates='a {}')}
@pytest.mark.parametrize('kind', BAD_META)
def test_suite_json(kind, tmp_path):
    for o in ('train', 'val', 'test'): parquet(tmp_path/f'{o}.parquet')
    (tmp_path/'suite.json').write_text(BAD_META[kind] if isinstance(BAD_META[kind], str) else json.dumps(BAD_META[kind]))
    assert 'suite.json' in str(refused(tmp_path))

@pytest.mark.parametrize('text, says', [('{', 'not valid JSON'), ('['*100_000, 'not valid JSON'), ('3', 'must hold a list'), ('[1, 2]', 'must hold a list'), ('["cat", " "]', 'class 1 has no name'), ('["cat"]', '1 class names'), ('{"cat": "Katze"}', "no entry for 'dog'")])
def test_class_name_files(text, says, good, tmp_path):
    (tmp_path/'names.json').write_text(text)
    assert says in str(refused(good, classnames=str(tmp_path/'names.json')))

def test_the_metrics_are_the_trainers(): assert set(D.METRIC_NAMES) == set(trainer.METRICS)

@pytest.mark.parametrize('templates', ['a photo', ['a {}', 'a {'], ['{0.__class__}'], 'a {} and {}', [3]], ids=str)
def test_templates(templates, good): assert 'template' in str(refused(good, templates=templates))

@pytest.mark.parametrize('names', [['cat', None], ['cat', ['dog']], dict(cat='cat', dog=None), 3], ids=str)
def test_class_names_that_are_no_words(names, good): assert 'class names' in str(refused(good, classnames=names))

def test_names_that_become_the_same(good, tmp_path):
    (good/'sea_lion').mkdir(); (good/'sea lion').mkdir()
    for c in ('sea_lion', 'sea lion'): [(good/c/f'{i}.png').write_bytes(encoded('PNG')) for i in range(6)]
    with pytest.warns(UserWarning, match="share a name, such as 'sea lion'"): suite = load_suite(str(good), progress=False)
    assert suite.classnames == ['cat', 'dog', 'sea lion', 'sea lion']
    for c in ('cat', 'sea_lion'): (tmp_path/'other'/'test'/c).mkdir(parents=True); (tmp_path/'other'/'test'/c/'a.png').write_bytes(encoded('PNG'))
    with pytest.warns(UserWarning): assert "'sea lion'" in str(refused(good, suite=str(tmp_path/'other'/'test')))  # which of the two?
    (good/'Dog').mkdir(); (good/'Dog'/'a.png').write_bytes(encoded('PNG'))
    with pytest.warns(UserWarning, match='4 classes share a name'): load_suite(str(good), progress=False)

NAMES = ['猫', '$x^{$', '<script>alert(1)</script>', 'a|b', '..', '_', '{}', 'a\nb', 'x'*5000, "O'Hara; rm -rf *", '%s', 'C:\\x', '../../x']
def test_names_pass_unharmed(tmp_path):
    label = pa.array([NAMES[i % len(NAMES)] for i in range(6*len(NAMES))])
    path = parquet(tmp_path/'a.parquet', [dict(bytes=encoded('PNG'), path='<b>|.png')]*len(label), label)
    before = snapshot(tmp_path)
    suite = load_suite(str(path), progress=False)
    assert sorted(suite.classnames) == sorted(' '.join((o.replace('_', ' ').strip() or o).split()) for o in NAMES)
    assert len(suite.classnames) == len(NAMES) and any('<script>' in o for o in suite.classnames)
    plt.close(show_pictures(suite.train, 13, suite.classnames, title='$x^{$'))
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # a font's
        warnings.filterwarnings('error', 'constrained_layout')
        shown = show_pictures(suite.train, 40, suite.classnames, title='$x^{$')
        shown.savefig(io.BytesIO())
    titles = {o.get_title() for o in shown.axes}
    assert '$x^{$' in titles and any(o.startswith('xxx') and '...' in o for o in titles) and max(map(len, titles)) == 40
    suite.name = suite.splits['test'].metric = '<script>'
    suite.splits['test'].name = '<i>|'
    assert '<script>' not in suite._repr_markdown_() and '&lt;i&gt;&#124;' in suite._repr_markdown_() and snapshot(tmp_path) == before

# --- anything at all

def why(raw):
    "What becomes of some bytes; anything but a picture or a reason is an error."
    t = time.time()
    try: out = decode(raw).mode
    except BadPicture as e:
        out = str(e)
    assert REASON.fullmatch(out), out
    assert time.time() - t < 5
    return out

@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=400))
def test_any_bytes(raw): why(raw)

GOOD = {k: encoded(k) for k in FORMATS}
REASON = re.compile(r'too large \([\d,]+ pixels; at most 89,478,485\)|too large for this machine|truncated|damaged|empty file|no picture of a known kind|RGB')
@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_any_harm_to_a_good_file(kind, data):
    raw = bytearray(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 8))): raw[data.draw(st.integers(0, min(len(raw) - 1, 200)))] = data.draw(st.integers(0, 255))
    why(bytes(raw[:data.draw(st.integers(1, len(raw)))]))

# --- the fingerprint

def prints(folder): return load_suite(str(folder), progress=False).fingerprint

def test_the_fingerprint_is_of_what_is_used(good, tmp_path):
    "Not of names, times, or the kind of file; without what is skipped."
    first = prints(good)
    assert set(first) == {'train', 'val', 'test'} and all(re.fullmatch('[0-9a-f]{64}', o) for o in first.values()) and len(set(first.values())) == 3
    good.rename(tmp_path/'moved'); good = tmp_path/'moved'
    os.utime(good/'cat'/'00.png', (1, 1)); (good/'cat'/'notes.txt').touch()
    assert prints(good) == first
    files = [(o.read_bytes(), c) for i, c in enumerate(('cat', 'dog')) for o in sorted((good/c).iterdir()) if o.suffix == '.png']
    for shards in ([slice(None)], [slice(10), slice(10, None)]):
        (place := tmp_path/f'shards{len(shards)}').mkdir()
        for i, o in enumerate(shards): parquet(place/f'train-{i:05}-of-{len(shards):05}.parquet', [dict(bytes=b, path=None) for b, _ in files[o]], [c for _, c in files[o]])
        assert prints(place) == first
    (good/'cat'/'zz.png').touch()
    suite = load_suite(str(good), progress=False, on_bad_image='skip')
    assert suite.fingerprint['val'] and suite.skipped and set(suite.fingerprint) == set(first)

@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=5), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=5))
def test_fingerprints_are_equal_where_pictures_labels_and_order_are(a, b):
    "Two short data sets of four pictures that differ in one byte, and three labels."
    raws = [encoded('PNG') + bytes([i]) for i in range(4)]  # a byte that changes no pixel
    def of(rows):
        ds = datasets.Dataset.from_dict(dict(image=[dict(bytes=raws[p], path=None) for p, _ in rows], label=[l for _, l in rows]), features=datasets.Features(image=datasets.Image(), label=datasets.Value('int64')))
        two = datasets.Dataset.from_dict(dict(image=[dict(bytes=raws[0], path=None)]*2, label=[0, 1]), features=datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=['a', 'b'])))
        return D.validate(dict(train=two, val=ds), progress=False)[2]['val']
    assert (of(a) == of(b)) == (a == b) and of(a) == of(list(a))

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
