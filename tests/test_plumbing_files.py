"Files: whatever has a type and a shape comes back as it was, and a part left by a kill goes."
import pytest
import torch
from hypothesis import given, settings, strategies as st

from sae_ft.plumbing.files import digest, read_tensors, write_tensors, write_whole

TYPES = torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool

@settings(max_examples=30, deadline=None)
@given(dtype=st.sampled_from(TYPES), shape=st.lists(st.integers(0, 3), max_size=3), note=st.text(max_size=9))
def test_any_tensor_comes_back(dtype, shape, note, tmp_path_factory):
    path = tmp_path_factory.mktemp('x')/'x.safetensors'
    tensors = dict(a=torch.ones(shape).to(dtype), b=torch.arange(6.).reshape(2, 3).T)
    write_tensors(path, tensors, note=note)
    read, notes = read_tensors(path)
    assert notes == dict(note=note) and digest(read) == digest(tensors)

def test_what_a_kill_left_goes_with_the_next_writing(tmp_path):
    part = tmp_path/'.x.part'
    part.mkdir()
    (part/'half').write_text('of it')
    write_whole(tmp_path/'x', lambda p: p.write_text('whole'))
    assert [o.name for o in tmp_path.iterdir()] == ['x'] and (tmp_path/'x').read_text() == 'whole'

def test_an_error_of_the_writer_passes_and_leaves_nothing(tmp_path):
    (tmp_path/'x').write_text('before')
    with pytest.raises(KeyError): write_whole(tmp_path/'x', lambda p: {}['none'])
    assert [o.name for o in tmp_path.iterdir()] == ['x'] and (tmp_path/'x').read_text() == 'before'
