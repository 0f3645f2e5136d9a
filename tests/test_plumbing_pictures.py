"Pictures: any bytes are a picture or a reason, and threads do not disturb each other's warnings."
import io, warnings
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings, strategies as st
from PIL import Image

from sae_ft.plumbing.pictures import FORMATS, BadPicture, decode

def saved(kind):
    out = io.BytesIO()
    Image.new('RGB', (9, 7), 'red').save(out, kind)
    return out.getvalue()

WHOLE = [saved(o) for o in FORMATS if o in Image.SAVE]

@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_bytes_are_a_picture_or_a_reason(data):
    raw = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(0, 4))): raw[data.draw(st.integers(0, len(raw) - 1))] ^= 255
    raw = bytes(raw[:data.draw(st.integers(1, len(raw)))])
    try: assert decode(raw).mode == 'RGB'
    except BadPicture as e: assert str(e) and '\n' not in str(e)

def test_filters_are_as_before_after_many_threads():
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool: sizes = [o.size for o in pool.map(decode, WHOLE*20)]
    assert set(sizes) == {(9, 7)} and list(warnings.filters) == before
