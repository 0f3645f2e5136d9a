"The record of a training: what is logged when, and that it is whole after going on."
import torch

from sae_ft.record import Record, plot_curves

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
