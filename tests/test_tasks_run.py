"Sequences of tasks on a folder of four classes: killed and resumed to the same bits, a memory that stays."
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sae_ft.plumbing.files import read_tensors
from sae_ft.runs import read_metrics
from sae_ft.tasks_methods import TASK_METHODS
from sae_ft.tasks_run import Sequence, Sequenced, TaskConfig, is_done, run_sequence
from sae_ft.trainer import Tuning
from tiny_runs import TINY, one_line

@pytest.fixture(scope='module')
def four(tmp_path_factory):
    "Twenty pictures of each of four classes; `val` and `test` get two of each."
    root = tmp_path_factory.mktemp('four')
    for c, word in enumerate(('cat', 'dog', 'tree', 'house')):
        (root/word).mkdir()
        for i in range(20):
            Image.effect_noise((20, 20), 30 + 30*c + i).convert('RGB').save(root/word/f'{i}.png')
    return str(root)

def cfg_of(four, out_dir, **other):
    how = dict(limit=None, dataset=four, tasks=2, batch_size=16, save_every=0, lr=1e-3, out_dir=str(out_dir))
    return TaskConfig(**TINY | how | other)

def record(folder): return [{k: v for k, v in o.items() if k != 'seconds'} for o in read_metrics(folder)]
def tensors(folder, name): return read_tensors(Path(folder)/f'{name}.safetensors')[0]

class Cut(Exception): pass

def lives(cfg, monkeypatch, every):
    "Run a sequence that dies after so many steps or tasks, and count its lives."
    step, keep, left, n = Tuning.step, Sequence.keep, [every], 1
    def dying(f):
        def wrapped(self, *args):
            result = f(self, *args)
            left[0] -= 1
            if not left[0]: raise Cut
            return result
        return wrapped
    monkeypatch.setattr(Tuning, 'step', dying(step))
    monkeypatch.setattr(Sequence, 'keep', dying(keep))
    while not is_done(cfg.folder()):
        try: run_sequence(cfg, progress=False)
        except Cut: left[0], n = every, n + 1
    return n

@pytest.mark.parametrize('row', ['macil', 'sae-new'])
def test_a_sequence_that_is_killed_again_and_again_has_the_same_bits(row, four, tmp_path, monkeypatch):
    whole, cut = (cfg_of(four, tmp_path/o, sequence=row) for o in ('whole', 'cut'))
    run_sequence(whole, progress=False)
    assert lives(cut, monkeypatch, every=3) > 2
    for name in ('model', 'statistics'):
        a, b = tensors(tmp_path/'whole', name), tensors(tmp_path/'cut', name)
        assert a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())
    assert json.dumps(record(tmp_path/'whole')) == json.dumps(record(tmp_path/'cut'))
    assert {o.name for o in (tmp_path/'cut').iterdir()} == {
        'sequence.json', 'metrics.jsonl', 'model.safetensors', 'statistics.safetensors'}

def test_the_state_does_not_grow_from_task_to_task(four, tmp_path, monkeypatch):
    sizes, keep = [], Sequence.keep
    def kept(self):
        keep(self)
        tensors, notes = read_tensors(self.folder/'state.safetensors')
        sizes.append(sum(v.nbytes for v in tensors.values()))
    monkeypatch.setattr(Sequence, 'keep', kept)
    done = run_sequence(cfg_of(four, tmp_path/'four', tasks=4, epochs=0), progress=False)
    assert len(sizes) == 5 and len(set(sizes)) == 1
    d = tensors(tmp_path/'four', 'statistics')['moved'].shape[1]
    assert {o['bytes_a_class'] for o in done.lines} == {4*d + 8}

def test_the_ends_and_what_is_recorded(four, tmp_path):
    zero = run_sequence(cfg_of(four, tmp_path/'zero', sequence='zero-shot'), progress=False)
    joint = run_sequence(cfg_of(four, tmp_path/'joint', sequence='joint'), progress=False)
    assert [o['task'] for o in zero.lines] == [0, 1, 2] and [o['task'] for o in joint.lines] == [0, 1]
    rows = zero.matrix()
    assert rows[0] == rows[1] == rows[2] and all(o['drift']['cka'] == pytest.approx(1) for o in zero.lines)
    assert zero.lines[2]['means']['error'] == pytest.approx(dict(stale=0, moved=0), abs=1e-6)
    assert sorted(joint.lines[1]['classes']) == [0, 1, 2, 3] and len(joint.matrix()[1]) == 2
    assert isinstance(Sequenced(tmp_path/'zero').classnames, list)

def test_a_sequence_that_ends_early_is_the_beginning_of_the_whole(four, tmp_path):
    whole = run_sequence(cfg_of(four, tmp_path/'whole', tasks=4, look_every=3), progress=False)
    part = run_sequence(cfg_of(four, tmp_path/'part', tasks=4, until=3, look_every=3), progress=False)
    assert [o['task'] for o in part.lines] == [0, 1, 2, 3] and part.lines == whole.lines[:4]
    looked = [o['task'] for o in whole.lines if o['means']['error']]
    assert looked == [1, 3, 4]   # the first task's pictures are at hand anyway

def test_rows_of_other_classes_stay(four, tmp_path, monkeypatch):
    heads, task = [], Sequence.task
    def watched(self, t):
        before = self.classifier.head.weight.detach().clone()
        task(self, t)
        changed = (self.classifier.head.weight != before).any(1)
        heads.append((sorted(self.rounds[t]), changed.nonzero()[:, 0].tolist()))
    monkeypatch.setattr(Sequence, 'task', watched)
    run_sequence(cfg_of(four, tmp_path/'head'), progress=False)
    assert len(heads) == 2 and all(a == b for a, b in heads)

def test_every_row_runs(four, tmp_path):
    for row in set(TASK_METHODS) - {'macil', 'sae-new', 'zero-shot', 'joint', 'sequential'}:
        run_sequence(cfg_of(four, tmp_path/row, sequence=row, save_every=60), progress=False)
        assert is_done(tmp_path/row)

def test_wrong_settings_and_folders_are_said_in_a_sentence(four, tmp_path):
    for name in ('tasks', 'until', 'look_every', 'sigma', 'lr'):
        wrong, words = {name: 0}, f'{name} is 0'
        with pytest.raises(ValueError) as error: cfg_of(four, tmp_path/'x', **wrong).check()
        assert words in one_line(error)
    with pytest.raises(ValueError) as error: TaskConfig(sequence='sdc')
    assert 'sequential' in one_line(error)
    with pytest.raises(ValueError) as error: run_sequence(cfg_of(four, tmp_path/'x', tasks=9), progress=False)
    assert 'there are 4 classes' in one_line(error)
    (tmp_path/'other').mkdir()
    (tmp_path/'other'/'thesis.txt').write_text('mine')
    with pytest.raises(ValueError) as error: run_sequence(cfg_of(four, tmp_path/'other'), progress=False)
    assert 'not the folder of a sequence' in one_line(error)
    with pytest.raises(ValueError, match='did not come to its end'): Sequenced(tmp_path/'x')
