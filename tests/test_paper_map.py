"The map of the paper: each row has runs, a function and commands; grids are ones that a sweep can run."
import ast
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from layout import notebooks
from sae_ft import paper_map
from sae_ft.methods import METHODS
from sae_ft.paper_map import BACKBONES, GRIDS, REMADE, at_paper_scale, commands, remake, scale_stages
from sae_ft.presets import PRESETS
from sae_ft.settings import Config

@pytest.mark.parametrize('grid', GRIDS)
@pytest.mark.parametrize('backbone', BACKBONES)
def test_grids_are_settings_of_runs(grid, backbone):
    stages = scale_stages(grid, '/data', backbone=backbone)
    known = {o.name for o in fields(Config)} | {'data_root'}
    for o in sum(stages.values(), []):
        assert set(o) <= known and o['method'] in METHODS and o['preset'] in PRESETS
        assert o['data_root'] == '/data' and 32*o['k'] == BACKBONES[backbone][1]

def test_the_stages_run_in_order(monkeypatch):
    import pandas as pd
    seen = []
    def sweep(runs, workers, executor):
        seen.append((len(runs), workers, executor))
        return pd.DataFrame([dict(folder=o['out_dir']) for o in runs])
    monkeypatch.setattr(paper_map, 'sweep', sweep)
    table = at_paper_scale('fmow', '/data', 'x', 3, 'cluster', seeds=(0, 1), methods=('ft', 'sae-ft'))
    assert seen == [(2, 3, 'cluster'), (4, 3, 'cluster')] and table.folder.is_unique and len(table) == 6

@pytest.mark.parametrize('name', REMADE)
def test_commands_are_python_of_names_that_are_there(name):
    for line, call in zip(commands(name, 'my data', 'out'), ('at_paper_scale', 'remake')):
        python, flag, code = shlex.split(line)
        tree = ast.parse(code)
        called = [o.func for o in ast.walk(tree) if isinstance(o, ast.Call)]
        calls = {o.id for o in called if isinstance(o, ast.Name)}
        assert (python, flag) == ('python', '-c') and call in calls
        assert calls - {'print'} <= set(paper_map.__all__)
    assert REMADE[name].grid in GRIDS and REMADE[name].page in {p.stem for p in notebooks()}

@pytest.mark.parametrize('name', ['cka', 'shifts', 'transfer', 'averages'])
def test_tables_are_made_of_records(name, made_up):
    made = remake(name, made_up/'main')
    assert len(made) if hasattr(made, 'index') else made.axes

def test_a_folder_without_runs_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match='no finished run lies under'): remake('cka', tmp_path)
