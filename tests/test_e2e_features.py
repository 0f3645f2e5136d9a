"""End to end: the committed counts of features and the trade-off are of the committed runs.

Accuracy in features.csv and tradeoff.csv is that of the run records, but for two pictures a split at most,
whose answers turn with the order of sums."""
import numpy as np
import pandas as pd
import pytest

from current import ROOT
from sae_ft.runs import load_run

RESULTS = ROOT/'nbs'/'results'
LAM = dict(ft=1., l2=3.)  # of the counted runs; 1 for all others

@pytest.fixture(scope='module')
def runs():
    "(method, lam, seed) -> the last record of a committed run."
    folders = [p.parent for stage in ('main', 'paths') for p in sorted((RESULTS/stage).rglob('config.json'))]
    found = [load_run(o) for o in folders]
    return {(o.config.method, o.config.lam, o.config.seed): o.of('end')[-1] for o in found}

def test_committed_counts_are_of_the_committed_runs(runs):
    counts, checked = pd.read_csv(RESULTS/'features.csv'), 0
    for o in counts[counts.method != 'wise-ft'].itertuples():
        after = runs[o.method, LAM.get(o.method, 1.), o.seed]['after'][o.split]
        assert o.accuracy == pytest.approx(after['value'], abs=2.01/o.pictures), o
        checked += 1
    assert checked == 3*3*counts.split.nunique() and sorted(counts.seed.unique()) == [0, 1, 2]

def test_the_committed_trade_off_is_of_the_committed_runs(runs):
    for o in pd.read_csv(RESULTS/'tradeoff.csv').query('alpha == 1').itertuples():
        after = runs[o.method, o.lam, o.seed]['after']
        far = [v for v in after.values() if v['kind'] == 'far']
        mean, slack = np.mean([v['value'] for v in far]), np.mean([201/v['n'] for v in far])
        assert o.id == pytest.approx(100*after['line']['value'], abs=201/after['line']['n'])
        assert o.far == pytest.approx(100*mean, abs=slack)
