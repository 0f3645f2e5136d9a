"Grids and sweeps."
import os
import signal
from pathlib import Path

import pytest

from sae_ft import sweep as module
from sae_ft.experiment import threads_of
from sae_ft.plumbing import threads as plumbing
from sae_ft.settings import Config
from sae_ft.sweep import grid, run_in_process, sweep

def test_a_grid_is_every_combination_with_folders_named_by_what_varies():
    runs = grid('r', method=['ft', 'l2'], lam=[.5, 1], seed=3)
    names = ['ft-lam0.5', 'ft-lam1', 'l2-lam0.5', 'l2-lam1']
    assert [o['out_dir'] for o in runs] == [str(Path('r')/o) for o in names]
    assert all(o['seed'] == 3 for o in runs)
    assert [Config(**o).check().method for o in runs] == ['ft', 'ft', 'l2', 'l2']

def test_a_sweep_refuses_wrong_settings_before_it_starts(tmp_path):
    good = dict(method='ft', out_dir=str(tmp_path/'good'))
    bad = dict(method='qqq', out_dir=str(tmp_path/'bad'))
    for runs, says in [([good, bad], "unknown method 'qqq'"), ([good, good], 'two runs have the folder')]:
        with pytest.raises(ValueError, match=says): sweep(runs, progress=False)
    assert not list(tmp_path.iterdir())

def test_a_process_that_dies_is_an_error_like_others(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'execute', die)
    assert 'the process of this run died' in run_in_process(dict(out_dir=str(tmp_path/'run')), 1)

def die(settings, threads, answer): os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.parametrize('workers,user,n', [(1, None, 6), (2, None, 3), (9, None, 1), (2, '4', 4)])
def test_workers_share_the_cores_unless_the_user_gave_a_number(workers, user, n, tmp_path, monkeypatch):
    given = []
    def run(settings, threads):
        given.append(threads)
        return ''
    if user: monkeypatch.setenv('OMP_NUM_THREADS', user)
    else: monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(plumbing, 'usable_cores', lambda: 6)
    monkeypatch.setattr(module, 'run_in_process', run)
    table = sweep(grid(tmp_path, method=['ft', 'l2'], seed=0), workers, progress=False)
    assert list(table.state) == ['done', 'done'] and given == [n, n]

class Answer:
    def send(self, text): self.text = text

def test_a_worker_takes_its_share_without_measuring_and_what_its_settings_name_before(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')   # and as it was after the test
    monkeypatch.setattr(module, 'die_with_parent', lambda: None)
    monkeypatch.setattr(plumbing, 'measured', None)
    found = []
    def run(cfg, progress): found.append(threads_of(cfg))
    monkeypatch.setattr(module, 'run', run)
    for settings in ({}, dict(threads=3)):
        answer = Answer()
        module.execute(dict(settings, out_dir='nowhere'), 2, answer)
        assert answer.text == ''
    assert found == [2, 3]
