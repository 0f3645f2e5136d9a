"What is read from the records of a benchmark, by made-up ones."
import pytest

from fake_sequences import made_up
from sae_ft.plumbing.files import write_json
from sae_ft.tasks_methods import BENCHMARK, TASK_METHODS
from sae_ft.tasks_ten import FAMILIES, choices_of, plot_against_drift, plot_seen
from sae_ft.tasks_ten import seed_differences, seen_so_far

@pytest.fixture
def found(tmp_path):
    def run(name, seed, v): return made_up(tmp_path/f'{name}{seed}', v, seed=seed)
    return dict(sequential=[run('s', i, .4 + i/10) for i in range(3)],
                wise=[run('w', i, .49 + i/10 + i/100) for i in (2, 0, 1)])  # in whatever order

def test_differences_are_of_the_same_seeds(found):
    table = seed_differences(found)
    assert list(table.index) == ['wise', 'ncm', 'sdc', 'wise-sdc']
    means = [o.split(' ± ')[0] for o in table['average incremental']]
    assert means == ['10', '-1', '-2', '8']
    assert table.loc['wise', 'average incremental'] == '10 ± 2.5'  # of 9, 10 and 11
    assert seed_differences(found, 'wise').loc['sequential', 'average incremental'] == '-10 ± 2.5'
    with pytest.raises(KeyError): seed_differences(found, 'joint')

def test_seeds_that_only_one_has_are_left_out(found):
    found['wise'] = found['wise'][:1]
    assert seed_differences(found).loc['wise', 'average incremental'] == '11'

def test_accuracy_of_classes_seen_is_a_mean_over_seeds(found):
    assert seen_so_far(found, 'sequential') == pytest.approx([50, 60])
    assert seen_so_far(found, 'sdc') == pytest.approx([48, 58])

def test_choices_say_whether_they_lie_inside(tmp_path):
    assert choices_of(tmp_path).empty
    choices = [dict(setting='lr', by='head', tried=[[1e-4, .5], [3e-4, .7], [1e-3, .6]]),
               dict(setting='lam', by='head', tried=[[1, .8], [3, .7]])]
    write_json(tmp_path/'chosen-l2-first.json', dict(settings={}, choices=choices))
    lr, lam = choices_of(tmp_path).to_dict('records')
    assert (lr['row'], lr['setting'], lr['chosen'], lr['inside']) == ('l2-first', 'lr', 3e-4, True)
    assert lr['tried'] == '0.0001: 50.0, 0.0003: 70.0, 0.001: 60.0'
    assert (lam['chosen'], lam['inside']) == (1, False)

def test_pictures_show_every_row_once(found):
    assert set(FAMILIES) == set(TASK_METHODS)
    ax, = plot_seen(found, ['sequential', 'wise-sdc']).axes
    assert [o.get_text() for o in ax.texts] == ['sequential', 'wise-sdc']
    assert ax.lines[0].get_ydata() == pytest.approx([50, 60]) and BENCHMARK['wise-sdc'][1] != 'head'
    ax, = plot_seen(found, ['wise'], 'sequential').axes
    assert ax.lines[0].get_ydata() == pytest.approx([10, 10]) and 'above sequential' in ax.get_ylabel()
    ax, = plot_against_drift(found).axes
    assert sorted(o.get_text() for o in ax.texts) == ['sequential', 'wise']
