"Figures of distribution shifts: the numbers that are drawn, on made-up run folders."
import numpy as np
from fake_runs import METHODS

from sae_ft import methods
from sae_ft.plumbing.style import METHOD_COLOURS
from sae_ft.runs import read_runs
from sae_ft.shifts import per_run, tidy
from sae_ft.shifts_figures import above, curves, plot_strength, plot_wise


def test_every_method_has_its_own_look():
    assert set(methods.METHODS) <= set(METHOD_COLOURS)
    assert len({tuple(o.values()) for o in METHOD_COLOURS.values()}) == len(METHOD_COLOURS)

def test_curves_go_from_zero_shot_to_tuned_over_seeds_that_have_every_point(main):
    way = curves(tidy(main))
    ft = way[way.method == 'ft']
    assert list(ft.alpha) == [0, .25, .5, .75, 1] and set(ft.seeds) == {2}
    records = [o.metrics[-1] for o in main if o.config.method == 'ft' and o.config.seed in (1, 2)]
    for alpha, key in (0, 'before'), (1, 'after'):
        assert np.isclose(ft.id[ft.alpha == alpha], np.mean([o[key]['line']['value'] for o in records]))
    ours = way[(way.method == 'sae-ft') & (way.alpha == 1)].iloc[0]
    better = above(way)
    assert ((better.id >= ours.id) & (better.far >= ours.far)).all() and 'sae-ft' not in set(better.method)
    assert {o.get_text() for o in plot_wise(way, 'accuracy').axes[0].texts} == {'zero-shot', *METHODS}

def test_strength_is_plotted_in_six_panels(made_up, main):
    table = per_run(read_runs(made_up/'paths'))
    fig = plot_strength(table, per_run([o for o in main if o.config.method == 'ft']))
    assert len(fig.axes) == 6 and all(o.get_xscale() == 'log' for o in fig.axes[:5])
    assert fig.axes[3].get_lines()
