"What a sequence did, in numbers and pictures."
import math

import matplotlib
import pytest
import torch
from hypothesis import given, settings, strategies as st

from sae_ft.tasks_measures import accuracy_by_task, forgetting, plot_matrix, plot_means, share, to_come

matplotlib.use('agg')
R = [[.5, .4, .3], [.9, .4, .3], [.6, .8, .2], [.7, .5, 1.]]

def test_forgetting_by_hand(): assert forgetting(R) == pytest.approx(((.9 - .7) + (.8 - .5))/2)
def test_tasks_to_come_by_hand(): assert to_come(R) == pytest.approx((.4 + .3 + .2)/3)

@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_model_that_never_changes_forgets_nothing(row):
    assert forgetting([row]*5) == 0

def test_tasks_without_pictures_do_not_count():
    nan = math.nan
    assert forgetting([[.5, nan], [.9, nan], [.5, nan]]) == pytest.approx(.4)
    assert math.isnan(to_come([[.5], [.6]])) and forgetting([[.5], [.6]]) == 0
    row = accuracy_by_task(torch.tensor([1, 1]), torch.tensor([1, 0]), [[0, 1], [2]])
    assert row[0] == .5 and math.isnan(row[1]) and math.isnan(share(torch.ones(0)))

def test_pictures_show_all_cells_and_ways():
    fig = plot_matrix(R, 'ft')
    assert [o.get_text() for o in fig.axes[0].texts] == [f'{100*v:.0f}' for row in R for v in row]
    def step(i): return dict(classes=[4, 1], **{k: [[0., i], [i, 1.]] for k in ('stale', 'moved', 'true')})
    fig = plot_means([step(0), step(1)], ['a', 'cat', 'b', 'c', 'dog'])
    assert [o.get_text().strip() for o in fig.axes[0].texts] == ['dog', 'cat'] and len(fig.axes[0].lines) == 6
