"What `decode` and `to_rgb` make of pictures: every mode, every orientation, any bytes."
import io
import struct
import threading
import warnings

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from hypothesis import given, settings, strategies as st
from odd_pictures import encoded, exif, noisy_files, png, saved, tall, why

from sae_ft.plumbing.pictures import FORMATS, MAX_PIXELS, decode, to_rgb

MODES = dict(RGBA=(0, 0, 0, 0), LA=(0, 0), P=0, L=255, CMYK=(0, 0, 0, 0), F=255., I=65535)
MODES['1'] = 1
BACK = {1: None, 2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM', 5: 'TRANSPOSE', 6: 'ROTATE_90',
        7: 'TRANSVERSE', 8: 'ROTATE_270'}  # orientation -> what the camera did to an upright picture
GOOD = {k: encoded(k) for k in FORMATS}


@pytest.mark.parametrize('mode', MODES)
def test_every_mode_becomes_rgb(mode):
    im = PIL.Image.new(mode, (8, 8), MODES[mode])
    if mode == 'P':
        im.putpalette([0, 0, 0]*256)
        im.info['transparency'] = 0
    out = to_rgb(im)
    assert out.mode == 'RGB' and out.getpixel((3, 3)) == (255, 255, 255)


def test_16_bit_and_orientation(tmp_path):
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    PIL.Image.fromarray(grey).save(tmp_path/'deep.png')
    out = np.asarray(decode({'bytes': (tmp_path/'deep.png').read_bytes(), 'path': None}))[..., 0]
    assert abs(out.astype(float) - grey/257).max() <= 1
    PIL.Image.new('RGB', (8, 4)).save(tmp_path/'side.jpg', exif=exif(6))  # the camera was on its side
    assert decode({'bytes': None, 'path': str(tmp_path/'side.jpg')}).size == (4, 8)


@pytest.mark.parametrize('orientation', BACK)
def test_every_orientation(orientation):
    "The dark end of a picture is above after all, however the camera was held."
    back, note = BACK[orientation], exif(orientation)
    im = tall() if back is None else tall().transpose(PIL.Image.Transpose[back])
    for kind, how in dict(JPEG=dict(quality=100), PNG={}, WEBP=dict(lossless=True), TIFF={}).items():
        out = decode(saved(im, kind, exif=note, **how))
        assert out.size == (4, 8) and out.getpixel((1, 0))[0] < 60 and out.getpixel((1, 7))[0] > 200


def test_an_orientation_among_damaged_notes_counts():
    "Pillow's own `exif_transpose` fails on these, for the tag beside it."
    notes = bytes.fromhex(
        '45786966 00004d4d 002a0000 00080006 01420002 00000007 00000056 01120003 00000001 00060000 '
        '011a0005 00000001 0000005e 01320002 00000005 00000066 87690004 00000001 0000006c 88250004 '
        '00000001 00000086 00000000 61207465 78740000 00000003 00000002 32303230 00000001 829a000c '
        '00000001 0000007e 00000000 3fe00000 00000000 00010001 00020000 00024e00 00000000 0000')
    raw = saved(tall().transpose(PIL.Image.Transpose.ROTATE_90), 'JPEG', exif=notes, quality=100)
    with pytest.raises(Exception): PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(raw)))
    assert decode(raw).size == (4, 8)


def test_sixteen_bits_keep_their_levels():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    want = ramp//257  # 65535 becomes 255, and what lies between two levels the lower one
    for kind in ('PNG', 'TIFF', 'PPM'):
        assert (np.asarray(decode(saved(PIL.Image.fromarray(ramp), kind)))[..., 0] == want).all(), kind
    for mode, kind in (('I;16B', '>u2'), ('I', 'i4')):
        im = PIL.Image.frombytes(mode, (256, 256), ramp.astype(kind).tobytes())
        assert (np.asarray(to_rgb(im))[..., 1] == want).all(), mode
    for value, grey in {10**6: 255, -5: 0}.items():
        assert to_rgb(PIL.Image.new('I', (1, 1), value)).getpixel((0, 0)) == (grey,)*3


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
    header = struct.pack('<HHH', 0, 1, 1) + struct.pack('<BBBBHHII', 16, 16, 0, 0, 1, 32, len(inner), 22)
    assert why(header + inner).startswith('too large (90,250,000 pixels')
    assert why(png(40_000, 40_000)) == f'too large (1,600,000,000 pixels; at most {MAX_PIXELS:,})'


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=400))
def test_any_bytes(raw): why(raw)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_any_harm_to_a_good_file(kind, data):
    raw = bytearray(GOOD[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, min(len(raw) - 1, 200)))
        raw[at] = data.draw(st.integers(0, 255))
    why(bytes(raw[:data.draw(st.integers(1, len(raw)))]))
