"Grids and sweeps."
import os
import signal
from pathlib import Path

import pytest

from sae_ft import sweep as module
from sae_ft.settings import Config
from sae_ft.sweep import grid, run_in_process, sweep

def test_a_grid_is_every_combination_with_folders_named_by_what_varies():
    runs = grid('r', method=['ft', 'l2'], lam=[.5, 1], seed=3)
    names = ['ft-lam0.5', 'ft-lam1', 'l2-lam0.5', 'l2-lam1']
    assert [o['out_dir'] for o in runs] == [str(Path('r')/o) for o in names]
    assert all(o['seed'] == 3 for o in runs)
    assert [Config(**o).check().method for o in runs] == ['ft', 'ft', 'l2', 'l2']

def test_a_sweep_refuses_wrong_settings_before_it_starts(tmp_path):
    good = dict(method='ft', out_dir=str(tmp_path/'good'))
    bad = dict(method='qqq', out_dir=str(tmp_path/'bad'))
    for runs, says in [([good, bad], "unknown method 'qqq'"), ([good, good], 'two runs have the folder')]:
        with pytest.raises(ValueError, match=says): sweep(runs, progress=False)
    assert not list(tmp_path.iterdir())

def test_a_process_that_dies_is_an_error_like_others(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'execute', die)
    assert 'the process of this run died' in run_in_process(dict(out_dir=str(tmp_path/'run')), 1)

def die(settings, threads, answer): os.kill(os.getpid(), signal.SIGKILL)
