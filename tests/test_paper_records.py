"Features over seeds and the trade-off: the recorded tables against the records of the runs."
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sae_ft.paper_records import (FEATURE_COLUMNS, FEATURE_METHODS, over_seeds, record_features,
                                  record_trade_off)
from sae_ft.runs import read_runs
from sae_ft.shifts import per_run

RESULTS = Path(__file__).resolve().parent.parent/'nbs'/'results'

def test_over_seeds_has_mean_and_deviation_with_digits_by_size():
    rows = [dict(split='line', method=m, seed=s, added=30 + s, fvu=.1*(1 + s))
            for m in FEATURE_METHODS for s in (0, 2)]
    table = over_seeds(pd.DataFrame(rows), ('line',), ('added', 'fvu'))
    assert list(table.index) == [('line', m) for m in FEATURE_METHODS] and set(table.seeds) == {2}
    assert set(table.added) == {'31.0 ± 1.4'} and set(table.fvu) == {'0.200 ± 0.141'}

def test_the_recorded_features_are_of_the_runs_of_the_grid():
    table = pd.read_csv(RESULTS/'features.csv')
    assert set(table.method) == set(FEATURE_METHODS) and set(FEATURE_COLUMNS) < set(table.columns)
    after = {(o.config.method, o.config.seed): o.metrics[-1]['after'] for o in read_runs(RESULTS/'main')}
    tuned = table[table.method != 'wise-ft']
    recorded = [after[o.method, o.seed][o.split]['value'] for o in tuned.itertuples()]
    assert ((tuned.accuracy - recorded).abs()*tuned.pictures < 1.01).all()  # one picture may fall otherwise

def test_the_recorded_trade_off_ends_at_the_runs_of_the_grid():
    table = pd.read_csv(RESULTS/'tradeoff.csv')
    found = read_runs(RESULTS/'paths', seed=0)
    runs = per_run([o for o in found if o.config.method in ('ft', 'l2', 'sae-ft')])
    runs = runs.set_index(['method', 'lam'])
    assert set(runs.index) == set(zip(table.method, table.lam)) and len(runs) > 10
    for alpha, before in (0, 'zero_'), (1, ''):
        ends = table[table.alpha == alpha].set_index(['method', 'lam']).loc[runs.index]
        for kind in ('id', 'near', 'far'): assert np.allclose(ends[kind], 100*runs[before + kind], atol=.1)

@pytest.mark.parametrize('record', [record_features, record_trade_off])
def test_without_the_runs_nothing_is_written(record, tmp_path):
    with pytest.raises(FileNotFoundError, match='is not the folder of a run'):
        record(tmp_path/'runs', tmp_path/'table.csv')
    assert not list(tmp_path.iterdir())
