"The line of plain models, and the height of others above it."
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from sae_ft.plumbing.style import METHOD_COLOURS
from sae_ft.shifts_robustness import expected, plain_line, plot_robustness


def test_the_line_of_models_on_a_line():
    x = np.linspace(.5, .9, 7)
    a, b = plain_line(x, norm.cdf(-.3 + .6*norm.ppf(x)))
    assert a == pytest.approx(-.3) and b == pytest.approx(.6)
    assert expected(.8, (a, b)) == pytest.approx(norm.cdf(-.3 + .6*norm.ppf(.8)))


def test_one_model_above_the_others_lifts_the_line_by_its_share():
    x = norm.cdf(np.array([-1., 0., 1.]))
    # least squares: a third of what the middle one is up
    a, b = plain_line(x, norm.cdf(np.array([-1., .3, 1.])))
    assert a == pytest.approx(.1) and b == pytest.approx(1.)


@pytest.mark.parametrize('x, y', [([.7, .7], [.3, .4]), ([.6, 1.], [.3, .4]), ([.6, .7], [0., .4])])
def test_accuracies_that_fix_no_line_are_refused(x, y):
    with pytest.raises(ValueError, match='a line needs plain models'): plain_line(x, y)


def test_the_figure_shows_every_method_and_ticks_in_per_cent():
    plain = pd.DataFrame(dict(id=[.7, .8], far=[.5, .55]))
    table = pd.DataFrame(dict(id=[75., 82.], far=[52., 60.]), index=['zero-shot', 'sae-ft'])
    ax, = plot_robustness(plain, table, plain_line(plain.id, plain.far)).axes
    drawn = {o.get_color() for o in ax.lines}
    assert {METHOD_COLOURS[m]['c'] for m in table.index} <= drawn
    assert [o.get_text() for o in ax.get_yticklabels()] == ['50', '55', '60']
    assert norm.cdf(ax.get_yticks()) == pytest.approx([.5, .55, .6])
