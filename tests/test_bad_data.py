"Pictures, labels and files that are not what they should be: each is refused or skipped as promised, and nothing is left behind."
import io, json, os, pickle, re, socket, struct, time, zipfile, zlib
from pathlib import Path

import datasets
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from sae_ft.data import BadPictures, load_suite, show_pictures
from sae_ft.pictures import FORMATS, BadPicture, decode

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
    'bomb.png': (png(40_000, 40_000), 'too large'), 'large.png': (png(9_500, 9_500), r'too large \(9500 x 9500 pixels; at most 89,478,485\)'), 'bomb.gif': (b'GIF89a' + struct.pack('<HHBBB', 65535, 65535, 0, 0, 0) + b',' + struct.pack('<HHHHB', 0, 0, 65535, 65535, 0) + b'\x02\x00;', 'too large'),
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
    'device.png': (lambda p: p.symlink_to('/dev/zero'), 'leads out of the data set')}
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
    "The one sentence that it is refused with."
    t = time.time()
    with pytest.raises((ValueError, FileNotFoundError)) as e: load_suite(str(spec), progress=False, **kw)
    assert '\n' not in str(e.value) and time.time() - t < 10 and isinstance(e.value, error)
    return e.value

@pytest.mark.parametrize('name', [*FILES, *PLACES])
def test_a_bad_picture_is_refused_or_skipped(name, good, tmp_path):
    path = good/'cat'/name
    if name in FILES: path.write_bytes(FILES[name][0])
    else: PLACES[name][0](path)
    reason = (FILES.get(name) or PLACES[name])[1]
    before = snapshot(tmp_path)
    error = refused(good, BadPictures)
    assert re.fullmatch(rf"1 of 25 pictures cannot be read: .*{re.escape(name)} \(.*({reason}).*\)\. Repair or delete them, or set on_bad_image to 'skip'\.", str(error)), error
    suite = load_suite(str(good), progress=False, on_bad_image='skip')
    assert len(suite.train) + len(suite.val) + len(suite.splits['test'].data) == 24 and suite.skipped == error.bad and len(sum(suite.skipped.values(), [])) == 1
    assert snapshot(tmp_path) == before and not Path('executed').exists()

def test_many_bad_pictures_are_listed_and_counted(good):
    for i in range(7): (good/'dog'/f'{i:02}.png').write_bytes(b'')
    error = refused(good, BadPictures)
    assert str(error).startswith('7 of 24 pictures cannot be read: ') and str(error).count('(empty file)') == 5 and '; ...' in str(error) and len(sum(error.bad.values(), [])) == 7

def test_nothing_left_of_a_class_or_of_all(good):
    for i in range(12): (good/'dog'/f'{i:02}.png').write_bytes(b'')
    assert 'one class only' in str(refused(good, on_bad_image='skip')) or 'no picture of split' in str(refused(good, on_bad_image='skip'))
    (good/'fish').mkdir()
    for i in range(12): (good/'fish'/f'{i}.png').write_bytes(encoded('PNG'))
    with pytest.warns(UserWarning, match="1 classes lost all their training pictures, such as 'dog'"): suite = load_suite(str(good), progress=False, on_bad_image='skip')
    assert suite.classnames == ['cat', 'dog', 'fish'] and set(suite.train['label'][:]) == {0, 2}

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

IMAGES = {'a path': '/etc/hostname', 'a url': 'http://127.0.0.1:9/a.png', 'up': '../elsewhere.png', 'not there': 'nowhere.png', 'file url': 'file:///etc/hostname'}
@pytest.mark.parametrize('kind', IMAGES)
def test_paths_in_parquet_that_lead_elsewhere(kind, tmp_path):
    (tmp_path/'elsewhere.png').write_bytes(encoded('PNG'))
    (tmp_path/'in').mkdir()
    rows = [dict(bytes=encoded('PNG'), path=None)]*11 + [dict(bytes=None, path=IMAGES[kind])]
    path = parquet(tmp_path/'in'/'a.parquet', rows)
    assert re.search(r'1 of 12 pictures cannot be read: .* \((a link or path that leads out|no such file)', str(refused(path, classnames=['cat', 'dog'])))
    assert len(load_suite(str(path), classnames=['cat', 'dog'], on_bad_image='skip', progress=False).skipped) == 1

BYTES = {'cut short': lambda b: b[:-40], 'cut in the middle': lambda b: b[:len(b)//2], 'empty': lambda b: b'', 'text': lambda b: b'label,image\n0,a.png\n', 'pickle': lambda b: pickle.dumps(Evil()), 'noise inside': lambda b: b[:40] + bytes(200) + b[240:], 'footer length': lambda b: b[:-8] + struct.pack('<I', 2**31) + b[-4:]}
@pytest.mark.parametrize('kind', BYTES)
def test_parquet_that_is_none(kind, tmp_path):
    path = parquet(tmp_path/'a.parquet')
    path.write_bytes(BYTES[kind](path.read_bytes()))
    assert 'a.parquet' in str(refused(path, classnames=['cat', 'dog'])) and not Path('executed').exists()

@pytest.mark.parametrize('image', [[None]*12, ['a.png']*12, [1]*12, [dict(a=1)]*12], ids=['nothing', 'words', 'numbers', 'objects'])
def test_image_columns_that_are_none(image, tmp_path):
    refused(parquet(tmp_path/'a.parquet', image), classnames=['cat', 'dog'])

@pytest.mark.parametrize('name', ['a[1]*.parquet', 'what?.parquet', '{a,b}.parquet', 'straße 猫.parquet'])
def test_a_file_name_is_no_pattern(name, tmp_path):
    parquet(tmp_path/'a1.parquet', label=[0]*12)
    suite = load_suite(str(parquet(tmp_path/name)), classnames=['cat', 'dog'], progress=False)
    assert sum(map(len, (suite.train, suite.val, suite.splits['test'].data))) == 12

# --- suite.json and class names

META = dict(name='x', train='train', val='val', splits=dict(test=dict(kind='id', metric='accuracy')))
BAD_META = {'list': '[]', 'cut': '{', 'deep': '['*100_000, 'no train': dict(META, train=None), 'path': dict(META, train='../../etc/x'), 'rooted': dict(META, val='/etc/x'), 'dots': dict(META, train='..'), 'windows': dict(META, train='a\\b'), 'no splits': dict(META, splits=None),
            'list of splits': dict(META, splits=['test']), 'split path': dict(META, splits={'../x': dict(kind='id', metric='accuracy')}), 'no kind': dict(META, splits=dict(test=dict(metric='accuracy'))), 'more': dict(META, splits=dict(test=dict(kind='id', metric='accuracy', data='x'))),
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

NAMES = ['猫', '$x^{', '<script>alert(1)</script>', 'a|b', '..', '_', '{}', 'a\nb', 'x'*5000, "O'Hara; rm -rf *", '%s', 'C:\\x', '../../x']
def test_names_pass_unharmed(tmp_path):
    label = pa.array([NAMES[i % len(NAMES)] for i in range(6*len(NAMES))])
    path = parquet(tmp_path/'a.parquet', [dict(bytes=encoded('PNG'), path='<b>|.png')]*len(label), label)
    before = snapshot(tmp_path)
    suite = load_suite(str(path), progress=False)
    assert sorted(suite.classnames) == sorted(' '.join((o.replace('_', ' ').strip() or o).split()) for o in NAMES)
    assert len(suite.classnames) == len(NAMES) and any('<script>' in o for o in suite.classnames)
    plt.close(show_pictures(suite.train, 13, suite.classnames, title='$x^{'))
    show_pictures(suite.train, 13, [o[:30] for o in suite.classnames]).savefig(io.BytesIO())
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
        assert '\n' not in out and len(out) < 120
    assert time.time() - t < 5
    return out

@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=400))
def test_any_bytes(raw): why(raw)

@settings(max_examples=200, deadline=None)
@given(st.sampled_from([o for o in FORMATS if o != 'AVIF']), st.data())
def test_any_harm_to_a_good_file(kind, data):
    raw = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(1, 8))): raw[data.draw(st.integers(0, min(len(raw) - 1, 200)))] = data.draw(st.integers(0, 255))
    why(bytes(raw[:data.draw(st.integers(1, len(raw)))]))

# --- the fingerprint

def prints(folder): return load_suite(str(folder), progress=False).fingerprint

def test_the_fingerprint_is_of_contents_labels_and_order(good, tmp_path):
    first = prints(good)
    assert set(first) == {'train', 'val', 'test'} and first == prints(good)
    good.rename(tmp_path/'moved'); good = tmp_path/'moved'
    assert prints(good) == first
    os.utime(good/'cat'/'00.png', (1, 1))
    assert prints(good) == first
    (good/'cat'/'00.png').rename(good/'cat'/'99.png')  # order
    assert (second := prints(good)) != first
    (good/'cat'/'01.png').rename(good/'dog'/'99.png')  # labels
    assert (third := prints(good)) not in (first, second)
    raw = bytearray((good/'cat'/'02.png').read_bytes())
    (good/'cat'/'02.png').write_bytes(bytes(raw) + b'\0')  # one byte that changes no pixel
    assert prints(good) not in (first, second, third)
