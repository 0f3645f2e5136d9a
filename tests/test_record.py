"The record of a training: what is logged when, and that it is whole after going on."
from itertools import accumulate

import pytest
import torch

from sae_ft import record as module
from sae_ft.record import Pace, Record, plot_curves, slow

def filled(total, every, **kw):
    record = Record(None, total, every, progress=False, **kw)
    for i in range(record.step, total):
        record.add_step(1e-3, torch.ones(()), dict(loss=torch.tensor(float(i)), ce=torch.tensor(0.)))
    return record

def test_every_nth_step_and_the_last_are_logged():
    lines = filled(11, 4).lines
    assert [o['step'] for o in lines] == [0, 4, 8, 10] and [o['loss'] for o in lines] == [0., 4., 8., 10.]
    assert set(lines[0]) == {'event', 'step', 'lr', 'grad_norm', 'loss', 'ce'}

def test_lines_from_before_are_told_again():
    whole, told = filled(11, 4).lines, []
    def tell(**line): told.append(line)
    record = Record(tell, 11, 4, progress=False, lines=whole[:2], step=5, seconds=60.)
    assert told == whole[:2] and record.seconds >= 60
    for i in range(5, 11):
        record.add_step(1e-3, torch.ones(()), dict(loss=torch.tensor(float(i)), ce=torch.tensor(0.)))
    assert record.lines == whole == told

def test_curves_show_the_objective_and_each_part_by_name():
    record = filled(6, 1)
    record.add_epoch(1, .5)
    axs = plot_curves(record.lines)
    assert [o.get_label() for o in axs[0].lines] == ['ce'] and len(axs[2].lines[0].get_xdata()) == 1

def paced(took):
    "What a pace says of steps that take so many seconds."
    pace = Pace(iter(accumulate([0, *took])).__next__)
    return [pace.step() for _ in took]

def test_slow_steps_are_noticed_once_and_a_few_are_no_reason():
    said = paced([2, 1, 1, 1, 1, 9, 9, 1, 1, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 9, 9, 9])
    assert [(i, o) for i, o in enumerate(said) if o] == [(16, 4.)]
    assert paced(20*[9]) == 20*[None]
    assert paced([9, 9, 9, 9, 9, 1, 1, 1, 1, 1, 4, 4, 4])[-1] == 4   # the fastest need not be the first

def test_judging_is_no_step():
    now = [0.]
    pace, said = Pace(lambda: now[0]), []
    for _ in range(20):
        now[0] += 1
        said.append(pace.step())
        now[0] += 50
        pace.start()
    assert said == 20*[None]

@pytest.mark.parametrize('progress', [True, False])
def test_the_bar_says_in_one_line_that_steps_are_slow(progress, monkeypatch, capsys):
    now = [0.]
    monkeypatch.setattr(module, 'Pace', lambda: Pace(lambda: now[0]))
    record = Record(None, 20, 1, progress=progress)
    for i in range(20):
        now[0] += 1 if i < 10 else 4.1
        record.add_step(1e-3, torch.ones(()), dict(loss=torch.tensor(0.)))
        record.add_epoch(i, .5)
    lines = [o for o in capsys.readouterr().out.splitlines() if 'times as long' in o]
    assert lines == ([slow(4.1)] if progress else [])

@pytest.mark.parametrize('threads,advises', [(1, False), (2, True)])
def test_one_thread_is_advised_to_who_has_more(threads, advises, monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    text = slow(4.123)
    assert text.startswith('steps take 4.1 times as long as at first: ') and '\n' not in text
    assert ('-p threads 1' in text) == advises and 'fewer runs at a time' in text
