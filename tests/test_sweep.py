"Grids of runs, and what a sweep refuses."
from pathlib import Path

import pytest

from sae_ft.sweep import grid, sweep
from sae_ft.settings import Config

def test_a_grid_is_every_combination_with_folders_named_by_what_varies():
    runs = grid('r', method=['ft', 'l2'], lam=[.5, 1], seed=3)
    assert [o['out_dir'] for o in runs] == [str(Path('r')/o) for o in ('ft-lam0.5', 'ft-lam1', 'l2-lam0.5', 'l2-lam1')]
    assert all(o['seed'] == 3 for o in runs) and [Config(**o).check().method for o in runs] == ['ft', 'ft', 'l2', 'l2']

def test_a_sweep_refuses_wrong_settings_before_it_starts(tmp_path):
    good = dict(method='ft', out_dir=str(tmp_path/'good'))
    for runs, says in [([good, dict(method='qqq', out_dir=str(tmp_path/'bad'))], "unknown method 'qqq'"), ([good, good], 'two runs have the folder')]:
        with pytest.raises(ValueError, match=says): sweep(runs, progress=False)
    assert not list(tmp_path.iterdir())
