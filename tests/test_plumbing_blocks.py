"Blocks of rows: written by processes that are killed, read in bounded memory."
import multiprocessing
import os
import signal

import pytest
import torch
from hypothesis import given, settings, strategies as st

from sae_ft.plumbing.blocks import Blocks

ROWS = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))

def fifty(folder, **how): return Blocks(folder, dict(what='fifty'), 50, **{'size': 8, **how})

def fill(folder, part, of, dies_after=None):
    "What a process does: its share of the blocks, in order."
    blocks = fifty(folder)
    for i, start in enumerate(blocks.missing(part, of)):
        if i == dies_after: os.kill(os.getpid(), signal.SIGKILL)
        blocks.write(start, x=ROWS[start:start + 8])

def test_three_processes_one_killed_and_two_that_go_on(tmp_path):
    fork = multiprocessing.get_context('fork')
    def all_of(*lives):
        jobs = [fork.Process(target=fill, args=(tmp_path, *o)) for o in lives]
        for o in jobs: o.start()
        for o in jobs: o.join()
        return [o.exitcode for o in jobs]
    assert all_of((0, 3), (1, 3, 1), (2, 3)) == [0, -signal.SIGKILL, 0]
    blocks = fifty(tmp_path)
    assert blocks.share(1, 3) == [16, 24] and blocks.missing() == [24]   # one of its two blocks was made
    with pytest.raises(ValueError, match='there is no block'): list(blocks.stream())
    assert all_of((0, 2), (1, 2)) == [0, 0]
    assert fifty(tmp_path).missing() == [] and torch.equal(blocks.take('x', torch.arange(50)), ROWS)

@settings(max_examples=20, deadline=None)
@given(rows=st.lists(st.integers(0, 49), min_size=1, max_size=80), size=st.integers(1, 60))
def test_any_rows_of_any_blocks(rows, size, tmp_path_factory):
    blocks = fifty(tmp_path_factory.mktemp('x'), size=size)
    for start in blocks.starts: blocks.write(start, x=ROWS[start:start + size])
    assert torch.equal(blocks.take('x', torch.tensor(rows)), ROWS[rows])
    assert torch.equal(torch.cat([o['x'] for o in blocks.stream()]), ROWS)

def test_a_block_that_is_written_again_is_read_again(tmp_path):
    blocks = fifty(tmp_path, size=50)
    blocks.write(0, x=ROWS)
    before, digest = blocks.take('x', torch.tensor([3])), blocks.digest()
    blocks.write(0, x=-ROWS)
    assert torch.equal(blocks.take('x', torch.tensor([3])), -before) and blocks.digest() != digest

def test_a_folder_that_says_nothing_of_use(tmp_path):
    fifty(tmp_path)
    (tmp_path/'about.json').write_text('[')
    with pytest.raises(ValueError, match='about.json'): fifty(tmp_path)
