"A store refuses something else, and what is no description."
import pytest
import torch

from sae_ft.plumbing.store import Store

def test_a_store_of_something_else(tmp_path):
    Store(tmp_path/'s', dict(a=1))
    with pytest.raises(ValueError) as error: Store(tmp_path/'s', dict(a=2))
    assert str(error.value) == (
        f"'{tmp_path/'s'}' holds embeddings of something else (a is 1 there and 2 here): "
        'choose another folder.')
    (tmp_path/'s'/'about.json').write_text('[')
    with pytest.raises(ValueError, match='about.json'): Store(tmp_path/'s', dict(a=1))

def test_parts_behind_a_gap_are_not_read(tmp_path):
    store = Store(tmp_path, dict(contents='known by place, too'))
    for start in (0, 2, 6): store.write(start, torch.ones(2, 3), torch.zeros(2))
    assert len(store.read()[0]) == 2
