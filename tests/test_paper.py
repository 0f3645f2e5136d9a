"The grid of the paper; that the committed records are those of the grid; the tables made again from them."
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_results, fake_run

from sae_ft.paper import (CANDIDATES, COMPARED, HEAD_FIRST, LAMS, SEEDS, copy_record, main_run, paper,
                          paper_run, paper_tables, stages)
from sae_ft.runs import read_config, read_metrics
from sae_ft.settings import Config

RESULTS = Path(__file__).resolve().parent.parent/'nbs'/'results'
PLACE = {'out_dir', 'sae', 'device', 'workers', 'log_every'}  # what may differ without another result

# --- the grid

def test_a_run_is_named_by_what_varies_and_takes_the_sae_of_its_size():
    run = paper_run('r', 'sae-ft', 2, .3, k=16, expansion=4, epochs=1)   # expansion is the default's
    assert Path(run['out_dir']) == Path('r')/'sae-ft-lam0.3-seed2-k16-epochs1'
    assert Path(run['sae']) == Path('r')/'zero-shot-lam1-seed2-k16'/'sae.safetensors'
    other = paper_run('r', 'sae-ft', 2, .3, sae_seed=4)
    assert Path(other['out_dir']).name == 'sae-ft-lam0.3-seed2-sae4' and 'seed4' in other['sae']
    assert paper_run('r', 'sae-ft', 2, .3, sae_seed=2) == paper_run('r', 'sae-ft', 2, .3)
    assert 'sae' not in paper_run('r', 'zero-shot', 2)
    chosen = main_run('r', 'l2', 1)
    assert chosen['lam'] == LAMS['l2'] and chosen['wise_curve'] == '0.25,0.5,0.75'

def test_the_grid_is_consistent():
    seen, made = {}, set()
    for entries in stages('root').values():
        for o in entries:
            assert seen.setdefault(o['out_dir'], o) == o and Config(**{**o, 'sae': None}).check()
            if 'sae' in o: assert str(Path(o['sae']).parent) in made
        made |= {o['out_dir'] for o in entries}
    assert all(LAMS[k] in v for k, v in CANDIDATES.items()) and set(LAMS) == set(CANDIDATES)
    assert all(main_run('r', k, 0)['lam'] in v for k, v in HEAD_FIRST.items())
    assert len(COMPARED) + 2 >= 12 and len(SEEDS) == 5

@pytest.mark.parametrize('stage', stages())
def test_the_committed_records_are_those_of_the_grid(stage):
    want = {Path(o['out_dir']).name: o for o in stages()[stage]}
    have = {o.name: o for o in (RESULTS/stage).iterdir()}
    assert set(want) == set(have)
    for name, folder in have.items():
        a, b = vars(Config(**want[name])), vars(read_config(folder))
        differ = {k for k in a.keys() | b.keys() if a.get(k) != b.get(k)}
        assert a.keys() == b.keys() and differ <= PLACE, name
        assert read_metrics(folder)[-1]['event'] == 'end'
        assert not {'model.safetensors', 'sae.safetensors'} & {o.name for o in folder.iterdir()}

# --- running it, and what is kept

def test_an_unknown_stage_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'mian'.*main"): paper(tmp_path, tmp_path/'to', only=['mian'])

def test_a_record_is_all_but_steps_and_weights(tmp_path):
    run = fake_run(tmp_path/'run', 'ft')
    lines = (run/'metrics.jsonl').read_text()
    (run/'metrics.jsonl').write_text(json.dumps(dict(event='step', step=1)) + '\n' + lines)
    (run/'model.safetensors').write_bytes(b'weights')
    copy = copy_record(run, tmp_path/'stage'/'run')
    assert sorted(o.name for o in copy.iterdir()) == ['config.json', 'metrics.jsonl', 'predictions.parquet']
    assert (copy/'metrics.jsonl').read_text() == lines
    assert (copy/'config.json').read_bytes() == (run/'config.json').read_bytes()
    assert not (copy_record(run, tmp_path/'short', answers=False)/'predictions.parquet').exists()

def test_what_failed_leaves_no_record_and_answers_are_kept_where_pictures_are_compared(tmp_path, monkeypatch):
    def sweep(runs, workers):
        for o in runs[1:]: fake_run(o['out_dir'], o['method'], o['seed'])
        state = ['failed'] + ['done']*(len(runs) - 1)
        return pd.DataFrame(dict(folder=[o['out_dir'] for o in runs], state=state, error=''))
    monkeypatch.setattr('sae_ft.paper.sweep', sweep)
    table = paper(tmp_path/'runs', tmp_path/'to', only=['wild', 'ablation'])
    assert list(table.stage.unique()) == ['wild', 'ablation'] and (table.state == 'failed').sum() == 2
    for stage, entries in stages(tmp_path/'runs').items():
        kept = {o.name: o for o in (tmp_path/'to'/stage).glob('*')}
        want = entries[1:] if stage in ('wild', 'ablation') else []
        assert set(kept) == {Path(o['out_dir']).name for o in want}
        assert all((o/'predictions.parquet').exists() == (stage == 'wild') for o in kept.values())

# --- all tables

def test_paper_tables_need_nothing_but_run_folders(tmp_path):
    root = fake_results(tmp_path, methods=('ft', 'l2', 'sae-ft'), seeds=(0, 1))
    names = {'rates', 'choice', 'main', 'paired', 'transfer', 'transfer_paired', 'ablation', 'wild',
             'wild_paired', 'heads', 'heads_choice', 'heads_paired'}
    assert set(paper_tables(root)) == names

def test_the_committed_tables_are_those_of_the_committed_records():
    "Text must be equal; the bootstrap's numbers may differ in what another processor rounds otherwise."
    made = paper_tables(RESULTS)
    assert {o.stem for o in (RESULTS/'tables').glob('*.csv')} == set(made)
    for name, table in made.items():
        text = (RESULTS/'tables'/f'{name}.csv').read_text(encoding='utf-8')
        if name.endswith('paired'):
            old = pd.read_csv(io.StringIO(text), header=[0, 1], index_col=0)
            assert set(old.index) == set(table.index), name
            assert np.allclose(old.loc[table.index].to_numpy(), table.to_numpy(), atol=.05), name
        else: assert table.to_csv() == text, name
