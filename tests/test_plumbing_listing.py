"Lists of files: kept, and true."
import os
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from sae_ft.plumbing import listing
from sae_ft.plumbing.files import FolderTaken
from sae_ft.plumbing.listing import Listing

def old(root):
    "All folders an hour old, so that a list of them is trusted."
    for d, _, _ in os.walk(root): os.utime(d, (time.time() - 3600,)*2)

PLACES = st.tuples(st.sampled_from('abc'), st.sampled_from(['', 'in']), st.integers(0, 3))
NAMES = st.lists(PLACES, max_size=12)

@settings(max_examples=25, deadline=None)
@given(before=NAMES, after=NAMES)
def test_a_kept_list_says_what_a_new_one_says(before, after, tmp_path_factory):
    root = tmp_path_factory.mktemp('x')
    def put(o):
        file = root.joinpath('pictures', o[0], o[1], f'{o[2]}.png')
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        return file
    (root/'pictures').mkdir()
    for o in before: put(o)
    old(root)
    kept = Listing(root/'pictures', {'.png'}, root/'index.parquet')
    assert not Listing(root/'pictures', {'.png'}, root/'index.parquet').read
    for o in before[::2]: put(o).unlink(missing_ok=True)
    for o in after: put(o)
    now = Listing(root/'pictures', {'.png'}, root/'index.parquet')
    assert now.below() == Listing(root/'pictures', {'.png'}).below() and len(now) == len(now.below())
    assert kept.root == now.root and set(now.read) <= set(now.found)

def test_names_that_are_odd_come_back(tmp_path):
    (tmp_path/'x'/'a b').mkdir(parents=True)
    for o in ('ü.png', 'a,b.PNG', '.hidden.png', 'x.png.txt'): (tmp_path/'x'/'a b'/o).touch()
    old(tmp_path/'x')
    first, then = (Listing(tmp_path/'x', {'.png'}, tmp_path/'i.parquet') for _ in range(2))
    assert first.below() == then.below() == [str(Path('a b')/o) for o in ('a,b.PNG', 'ü.png')]
    assert not then.read

def test_a_list_that_cannot_be_kept_is_a_warning(tmp_path):
    (tmp_path/'x').mkdir()
    with open(os.fsencode(tmp_path/'x') + b'/\xff.png', 'wb'): pass
    with pytest.warns(UserWarning, match='is not kept: .*surrogates not allowed'):
        assert len(Listing(tmp_path/'x', {'.png'}, tmp_path/'i.parquet')) == 1
    (tmp_path/'file').touch()
    with pytest.warns(UserWarning, match='is not kept: .*file'):
        Listing(tmp_path/'x', {'.png'}, tmp_path/'file'/'i.parquet')
    assert not (tmp_path/'i.parquet').exists()

def test_one_of_several_processes_keeps_the_list(tmp_path, monkeypatch):
    (tmp_path/'x').mkdir()
    def taken(folder): raise FolderTaken('another process')
    monkeypatch.setattr(listing, 'lock', taken)
    with warnings.catch_warnings(action='error'): Listing(tmp_path/'x', {'.png'}, tmp_path/'i.parquet')
    assert not (tmp_path/'i.parquet').exists()

def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError): Listing(tmp_path/'none', {'.png'})
