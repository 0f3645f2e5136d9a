"Paths over strengths: from made-up runs with answers, and read by hand."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from fake_runs import fake_run
from sae_ft.runs import read_runs
from sae_ft.shifts_paths import answers_by_strength, at_equal, frontier, plot_frontier, reach
from sae_ft.shifts_paired import bootstrap

LAMS = 1., 3., 10.

@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp('paths')
    for seed in (0, 1):
        fake_run(root/f'ft-{seed}', 'ft', seed)
        for method in ('l2', 'sae-ft'):
            for lam in LAMS: fake_run(root/f'{method}-{lam:g}-{seed}', method, seed, lam)
    return read_runs(root)

def test_a_path_has_every_strength_and_seed_in_order(runs):
    points = frontier(runs)
    l2 = points[points.method == 'l2']
    assert l2.lam.tolist() == [1, 1, 3, 3, 10, 10] and l2.seed.tolist() == [0, 1]*3
    run = next(o for o in runs if (o.config.method, o.config.lam, o.config.seed) == ('l2', 3., 1))
    far = [o['value'] for o in run.metrics[-1]['after'].values() if o['kind'] == 'far']
    assert np.isclose(l2[(l2.lam == 3) & (l2.seed == 1)].far.item(), np.mean(far))

def test_without_a_price_there_is_no_path(runs):
    with pytest.raises(ValueError, match='no run has a price'):
        frontier([o for o in runs if o.config.method == 'ft'])

def test_the_figure_has_a_path_a_method_and_a_band_where_there_are_seeds(runs):
    fig = plot_frontier(frontier(runs), ('far', 'transfer'))
    first, second = fig.axes
    assert {o.get_label() for o in first.lines} == {'ft', 'l2', 'sae-ft', 'zero-shot'}
    assert len(first.collections) == 2 and 'transfer' in second.get_ylabel()

@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=6), st.floats(0, 100))
def test_reach_falls_as_the_level_rises_and_lies_on_the_path(points, level):
    x, y = zip(*points)
    found = reach(x, y, level)
    assert np.isnan(found) == (max(x) < level)
    if not np.isnan(found):
        assert min(y) - 1e-9 <= found <= max(y) + 1e-9 and found >= reach(x, y, max(x)) - 1e-9
        assert reach(x, y, 0) == max(y)

def test_paths_compared_at_equal_id_are_those_of_the_records(runs):
    priced = [o for o in runs if o.config.method != 'ft']
    splits = runs[0].metrics[-1]['after']
    table = at_equal(bootstrap(answers_by_strength(priced), splits, ('id', 'far'), B=200))
    mean = frontier(priced).groupby(['method', 'lam'])[['id', 'far']].mean()
    level = min(mean.loc[m].id.max() for m in ('l2', 'sae-ft'))
    for m in ('l2', 'sae-ft'):
        o = mean.loc[m]
        assert np.isclose(table.loc[m, 'reached'], 100*reach(o.id, o.far, level), atol=1e-3)
    d = table.loc['l2']
    assert np.isclose(d.difference, table.reached['sae-ft'] - table.reached['l2'])
    assert d.low <= d.difference <= d.high
    assert pd.isna(table.loc['sae-ft', 'difference'])
