"The benchmark's table, from made-up records."
import json, math

import pytest

from fake_sequences import made_up
from sae_ft.plumbing.files import write_json
from sae_ft.tasks_methods import READOUTS, TASK_METHODS
from sae_ft.tasks_run import Sequenced, TaskConfig
from sae_ft.tasks_table import CHOICES, benchmark, choose_settings, copy_records, folder_of, incremental
from sae_ft.tasks_table import next_values, numbers, read_benchmark, seed_interval, sentences, table_of
from sae_ft import tasks_table

def test_numbers_by_hand(tmp_path):
    found = numbers(made_up(tmp_path/'one', .5))
    want = {'average incremental': 55, 'last': 60, 'forgetting': -10, 'tasks to come': 25, 'far': 30,
            'unseen concepts': 40, 'CKA': .8, 'FVU': .2, 'means off, stale': .2, 'means off, moved': .1}
    assert {k: found[k] for k in want} == pytest.approx(want) and math.isnan(found['near'])

def test_intervals_are_students():
    assert seed_interval([1., 2., 3.]) == '2 ± 2.5' and seed_interval([4.]) == '4'
    assert seed_interval([.5, .5]) == '0.5 ± 0' and seed_interval([2e-10, 3e-10]) == '0 ± 0'

def test_a_table_has_a_row_a_readout_the_best_first(tmp_path):
    found = dict(sequential=[made_up(tmp_path/f's{i}', .5 + i/10) for i in range(2)],
                 wise=[made_up(tmp_path/f'w{i}', .7) for i in range(2)])
    table = table_of(found)
    assert list(table.index) == ['wise', 'wise-sdc', 'sequential', 'ncm', 'sdc'] and set(table.seeds) == {2}
    said = sentences(found)
    assert len(said) == 5 and all('CKA' in o and '% of features preserved' in o for o in said)
    assert said[2].startswith('ncm (models of sequential, nearest stored mean)')

def judged(settings):
    "Made-up accuracies: best at lr 1e-4, lam 3, sigma .4 and wise_alpha .2."
    best = dict(lr=1e-4, lam=3., sigma=.4, wise_alpha=.2)
    return .5 + sum(.1 for k, v in best.items() if settings.get(k) == v)

@pytest.fixture
def made(monkeypatch):
    "Names of the sequences that were made, none of which takes any time."
    names = []
    def sequence_of(root, row, seed, settings, **other):
        folder = folder_of(root, row, seed, settings)
        if folder.exists(): return Sequenced(folder)
        names.append(folder.name)
        return made_up(folder, judged(settings))
    monkeypatch.setattr(tasks_table, 'sequence_of', sequence_of)
    return names

def test_the_best_on_validation_is_chosen_and_written_down(tmp_path, made):
    def several(wanted): return [tasks_table.sequence_of(tmp_path, *o) for o in wanted]
    for _ in range(2):
        rows = ['l2-first', 'joint', 'zero-shot']
        best = choose_settings(tmp_path, rows, dict(sigma=.2), CHOICES, several)
        assert best == {'l2-first': dict(sigma=.2, lr=1e-4, lam=3.), 'joint': dict(sigma=.2, lr=1e-4),
                        'zero-shot': dict(sigma=.2)}
    assert len(made) == 3 + 4 + 3 and all('-seed0-' in o for o in made)
    written = json.loads((tmp_path/'chosen-l2-first.json').read_text())
    assert written['settings'] == best['l2-first']
    said = [(o['setting'], o['by'], [v for v, _ in o['tried']]) for o in written['choices']]
    assert said == [('lr', 'head', [3e-5, 1e-4, 3e-4]), ('lam', 'head', [1., 3., 10., 30.])]
    (tmp_path/'begun').mkdir()
    write_json(tmp_path/'begun'/'sequence.json', {})
    copy_records(tmp_path, tmp_path/'records')
    for root in (tmp_path, tmp_path/'records'):
        found = read_benchmark(root)
        assert (root/'begun').exists() == (root == tmp_path)
        assert list(found) == ['l2-first', 'joint']
        assert incremental(found['l2-first'][0]) == pytest.approx(.65)

def test_an_executor_makes_what_is_tried_and_then_all_seeds(tmp_path, made, capsys):
    "Rates and widths of sequential tuning; rates, then strengths, of two rows; then two seeds of each."
    at_once = []
    class Several:
        def map(self, f, *args):
            at_once.append(len(args[0]))
            return map(f, *args)
    table = benchmark(tmp_path, seeds=(0, 1), rows=('wise', 'joint'), executor=Several())
    assert at_once == [3, 3, 1, 3 + 3, 3, 1, 4] and list(table.index) == ['wise', 'wise-sdc', 'joint']
    whole = {o for o in made if 'until' not in o}
    assert whole == {f'{row}-seed{seed}-lr0.0001-sigma0.4{more}' for seed in (0, 1)
                     for row, more in (('wise', '-wise_alpha0.2'), ('joint', ''))}
    assert all('-until5' in o for o in set(made) - whole) and len(made) == 3 + 4 + 6 + 4 + 4
    assert "wise: 2 seeds, {'sigma': 0.4, 'lr': 0.0001, 'wise_alpha': 0.2}" in capsys.readouterr().out

def test_choices_are_of_rows_and_settings():
    assert set(CHOICES) == set(TASK_METHODS) - {'zero-shot'}
    for row, each in CHOICES.items():
        for setting, values, readout in each:
            assert setting in TaskConfig.__dataclass_fields__ and readout in READOUTS
            assert list(values) == sorted(set(values))

@pytest.mark.parametrize('peak', range(9))
def test_climbing_ends_at_the_top_between_worse_ones_or_where_the_ladder_ends(peak):
    ladder, scores = [2.**i for i in range(9)], {}
    while values := next_values(ladder, scores):
        assert not set(values) & set(scores)
        scores |= {v: -abs(ladder.index(v) - peak) for v in values}
    assert max(scores, key=scores.get) == ladder[peak]
    assert all(ladder[i] in scores for i in (peak - 1, peak + 1) if 0 <= i < 9)

def test_short_ladders_are_tried_whole():
    assert [next_values(o, {}) for o in ([1.], [1., 2.], [1., 2., 3.])] == [[1.], [1., 2.], [1., 2., 3.]]
