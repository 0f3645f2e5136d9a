"The benchmark's table, from made-up records."
import json, math

import pytest

from sae_ft.plumbing.files import write_json
from sae_ft.tasks_methods import TASK_METHODS
from sae_ft.tasks_run import Sequenced
from sae_ft.tasks_table import STRENGTHS, benchmark, best_strength, candidates, copy_records, folder_of
from sae_ft.tasks_table import incremental, numbers, read_benchmark, seed_interval, sentences, table_of
from sae_ft import tasks_table

def answers(v):
    each = {'val': v - .1, 'line': v, 'emoji': v/2}
    return dict(row=[v, v/2], seen=each, all=each)

def made_up(folder, v, **more):
    "A record of two tasks with accuracies about v."
    folder.mkdir(parents=True)
    def line(t, v):
        drift = dict(cka=1 - t/10, fvu=.2, preserved=.5)
        error = dict(stale=.2, moved=.1) if t else {}
        return dict(event='task', task=t, classes=[t], seen=t, transfer=dict(food=.4), drift=drift,
                    answers={k: answers(v - i/100) for i, k in enumerate(('head', 'stale', 'moved'))},
                    means=dict(error=error), features={}, bytes_a_class=9)
    lines = [line(0, v/2), line(1, v), line(2, v + .1)]
    lines += [dict(event='sequence_end', groups=[[0], [1]], seconds=1)]
    (folder/'metrics.jsonl').write_text(''.join(json.dumps(o) + '\n' for o in lines))
    kinds = dict(line='id', emoji='far', food='transfer')
    write_json(folder/'sequence.json', dict(settings=more, classnames=['a', 'b'], kinds=kinds))
    return Sequenced(folder)

def test_numbers_by_hand(tmp_path):
    found = numbers(made_up(tmp_path/'one', .5))
    want = {'average incremental': 55, 'last': 60, 'forgetting': -10, 'tasks to come': 25, 'far': 30,
            'unseen concepts': 40, 'CKA': .8, 'FVU': .2, 'means off, stale': .2, 'means off, moved': .1}
    assert {k: found[k] for k in want} == pytest.approx(want) and math.isnan(found['near'])

def test_intervals_are_students():
    assert seed_interval([1., 2., 3.]) == '2 ± 2.5' and seed_interval([4.]) == '4'
    assert seed_interval([.5, .5]) == '0.5 ± 0'

def test_a_table_has_a_row_a_readout_the_best_first(tmp_path):
    found = dict(sequential=[made_up(tmp_path/f's{i}', .5 + i/10) for i in range(2)],
                 wise=[made_up(tmp_path/f'w{i}', .7) for i in range(2)])
    table = table_of(found)
    assert list(table.index) == ['wise', 'wise-sdc', 'sequential', 'ncm', 'sdc'] and set(table.seeds) == {2}
    said = sentences(found)
    assert len(said) == 5 and all('CKA' in o and '% of features preserved' in o for o in said)

def test_the_best_on_validation_is_chosen_once_and_written_down(tmp_path, monkeypatch):
    asked = []
    def sequence_of(root, row, seed, settings, **other):
        asked.append((row, seed, settings))
        return made_up(folder_of(tmp_path, row, seed, settings), .8 if settings['lam'] == 3. else .5)
    monkeypatch.setattr(tasks_table, 'sequence_of', sequence_of)
    for _ in range(2):
        best = best_strength(tmp_path, 'l2-first', dict(sigma=.2), STRENGTHS, limit=9)
        assert best == dict(sigma=.2, lam=3.)
    assert len(asked) == 4 and {seed for _, seed, _ in asked} == {0}
    written = json.loads((tmp_path/'chosen-l2-first.json').read_text())
    assert 'validation' in written['by'] and len(written['scores']) == 4
    assert best_strength(tmp_path, 'joint', dict(sigma=.2), STRENGTHS) == dict(sigma=.2)
    write_json(tmp_path/'chosen-sequential.json', dict(settings=dict(sigma=.2)))
    (tmp_path/'begun').mkdir()
    write_json(tmp_path/'begun'/'sequence.json', {})
    copy_records(tmp_path, tmp_path/'records')
    for root in (tmp_path, tmp_path/'records'):
        found = read_benchmark(root)
        assert (root/'begun').exists() == (root == tmp_path)
        assert list(found) == ['l2-first'] and incremental(found['l2-first'][0]) == pytest.approx(.75)

def test_an_executor_makes_what_is_tried_and_then_all_seeds(tmp_path, monkeypatch, capsys):
    "Five widths for drift compensation at once, then what two rows try, then two seeds of each."
    at_once, made = [], set()
    class Several:
        def map(self, f, *args):
            at_once.append(len(args[0]))
            return map(f, *args)
    def sequence_of(root, row, seed, settings, **other):
        folder = folder_of(root, row, seed, settings)
        if folder in made: return Sequenced(folder)
        made.add(folder)
        return made_up(folder, .8 if settings.get('wise_alpha') == .5 else .4 + settings['sigma']/10)
    monkeypatch.setattr(tasks_table, 'sequence_of', sequence_of)
    table = benchmark(tmp_path, seeds=(0, 1), rows=('wise', 'joint'), executor=Several())
    assert at_once == [5, 4, 4] and list(table.index) == ['wise', 'wise-sdc', 'joint']
    assert {o.name for o in made if o.name.startswith(('wise', 'joint'))} == {
        'wise-seed0-sigma1.6-wise_alpha0.3', 'wise-seed0-sigma1.6-wise_alpha0.5', 'joint-seed0-sigma1.6',
        'wise-seed0-sigma1.6-wise_alpha0.7', 'wise-seed1-sigma1.6-wise_alpha0.5', 'joint-seed1-sigma1.6'}
    assert "wise: 2 seeds, {'sigma': 1.6, 'wise_alpha': 0.5}" in capsys.readouterr().out

def test_strengths_are_of_rows_and_settings():
    assert set(STRENGTHS) <= set(TASK_METHODS)
    assert candidates('macil')[0] == dict(lam=.03) and candidates('zero-shot') == [{}]
