"Grids, and that the committed records are those of the grid."
from pathlib import Path

import pytest

from sae_ft.paper import CANDIDATES, COMPARED, LAMS, SEEDS, paper, stages
from sae_ft.sweep import grid, sweep
from sae_ft.runs import read_config, read_metrics
from sae_ft.settings import Config

RESULTS = Path(__file__).resolve().parent.parent/'nbs'/'results'
PLACE = {'out_dir', 'sae', 'device', 'workers', 'log_every'}  # what may differ without another result

def test_a_grid_is_every_combination_with_folders_named_by_what_varies():
    runs = grid('r', method=['ft', 'l2'], lam=[.5, 1], seed=3)
    assert [o['out_dir'] for o in runs] == [str(Path('r')/o) for o in ('ft-lam0.5', 'ft-lam1', 'l2-lam0.5', 'l2-lam1')]
    assert all(o['seed'] == 3 for o in runs) and [Config(**o).check().method for o in runs] == ['ft', 'ft', 'l2', 'l2']

def test_a_sweep_refuses_wrong_settings_before_it_starts(tmp_path):
    good = dict(method='ft', out_dir=str(tmp_path/'good'))
    for runs, says in [([good, dict(method='qqq', out_dir=str(tmp_path/'bad'))], "unknown method 'qqq'"), ([good, good], 'two runs have the folder')]:
        with pytest.raises(ValueError, match=says): sweep(runs, progress=False)
    assert not list(tmp_path.iterdir())

def test_an_unknown_stage_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'mian'.*main"): paper(tmp_path, tmp_path/'to', only=['mian'])

def test_the_grid_is_consistent():
    seen, made = {}, set()
    for entries in stages('root').values():
        for o in entries:
            assert seen.setdefault(o['out_dir'], o) == o and Config(**{**o, 'sae': None}).check()
            if 'sae' in o: assert str(Path(o['sae']).parent) in made
        made |= {o['out_dir'] for o in entries}
    assert all(LAMS[k] in v for k, v in CANDIDATES.items()) and set(LAMS) == set(CANDIDATES) and len(COMPARED) + 2 >= 12 and len(SEEDS) == 5

@pytest.mark.parametrize('stage', stages())
def test_the_committed_records_are_those_of_the_grid(stage):
    want, have = {Path(o['out_dir']).name: o for o in stages()[stage]}, {o.name: o for o in (RESULTS/stage).iterdir()}
    assert set(want) == set(have)
    for name, folder in have.items():
        a, b = vars(Config(**want[name])), vars(read_config(folder))
        assert {k: v for k, v in a.items() if k not in PLACE} == {k: v for k, v in b.items() if k not in PLACE}, name
        assert read_metrics(folder)[-1]['event'] == 'end' and not {'model.safetensors', 'sae.safetensors'} & {o.name for o in folder.iterdir()}
