"Files of pictures for tests: noisy, tall, of any kind, and what Pillow would read with a warning."
import io
import re
import struct
import time
import zlib

import numpy as np
import PIL.Image

from sae_ft.plumbing.pictures import BadPicture, decode

REASON = re.compile(
    r'too large \([\d,]+ pixels; at most 89,478,485\)|too large for this machine|'
    'truncated|damaged|empty file|no picture of a known kind|RGB')


def saved(im, kind, **how):
    "A picture as a file of that kind."
    out = io.BytesIO()
    im.save(out, kind, **how)
    return out.getvalue()


def encoded(kind, size=(16, 16), mode='RGB', **how):
    "A noisy picture as a file of that kind."
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return saved(PIL.Image.fromarray(noise).convert(mode), kind, **how)


def chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(width, height, pixels=b'', before=b''):
    "A PNG that says it is so large, whatever it holds."
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    body = chunk(b'IDAT', zlib.compress(pixels))
    return b'\x89PNG\r\n\x1a\n' + header + before + body + chunk(b'IEND', b'')


def exif(value):
    "Notes with that orientation."
    e = PIL.Image.Exif()
    e[0x0112] = value
    return e


def tall():
    "A white picture with a dark end above."
    im = PIL.Image.new('RGB', (4, 8), 'white')
    im.paste('black', (0, 0, 4, 2))
    return im


def noisy_files():
    "Pictures that Pillow reads with a warning, or refuses with one."
    cut = saved(tall(), 'JPEG', exif=exif(6).tobytes()[:-9], quality=100)
    scan = saved(tall(), 'TIFF')
    return [cut, png(9_500, 9_500), png(40_000, 40_000), *[scan[:n] for n in range(20, len(scan), 7)]]


def why(raw):
    "What becomes of some bytes; anything but a picture or a reason is an error."
    t = time.time()
    try: out = decode(raw).mode
    except BadPicture as e: out = str(e)
    assert REASON.fullmatch(out), out
    assert time.time() - t < 5
    return out
