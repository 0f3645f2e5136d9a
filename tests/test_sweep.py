"Grids and sweeps."
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sae_ft import sweep as module
from sae_ft.experiment import threads_of
from sae_ft.plumbing import threads as plumbing
from sae_ft.plumbing.files import FolderTaken
from sae_ft.plumbing.jobs import InProcess
from sae_ft.settings import Config
from sae_ft.sweep import execute, grid, run_when_free, sentence_of, sweep

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
    monkeypatch.setattr(module, 'RUN', InProcess('os.abort'))   # no job of ours: it ends without an answer
    table = sweep(grid(tmp_path, method=['ft', 'l2'], seed=0), progress=False)
    assert list(table.state) == 2*['failed'] and all('the process of this run died' in o for o in table.error)

def test_a_worker_that_is_lost_each_time_is_said_in_one_sentence():
    said = sentence_of(TimeoutError('\nthe machine is gone\nand much more'))
    assert said.startswith('its worker was lost again and again (TimeoutError: the machine is gone): ')
    assert sentence_of('') == '' and sentence_of('ValueError: lam is -1') == 'ValueError: lam is -1'

@pytest.mark.parametrize('workers,user,n', [(1, None, 6), (2, None, 3), (9, None, 1), (2, '4', 4)])
def test_workers_share_the_cores_unless_the_user_gave_a_number(workers, user, n, tmp_path, monkeypatch):
    given = []
    def job(settings, threads):
        given.append(threads)
        return ''
    if user: monkeypatch.setenv('OMP_NUM_THREADS', user)
    else: monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(plumbing, 'usable_cores', lambda: 6)
    monkeypatch.setattr(module, 'RUN', job)
    runs = grid(tmp_path, method=['ft', 'l2'], seed=0)
    table = sweep(runs, workers, progress=False)
    assert list(table.state) == ['done', 'done'] and given == [n, n]
    with ThreadPoolExecutor(2) as pool: sweep(runs, workers, progress=False, executor=pool)
    assert given[2:] == [None, None]   # where it is will decide

def test_elsewhere_a_run_takes_the_threads_that_it_may_use(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')   # and as it was after the test
    monkeypatch.delenv('OMP_NUM_THREADS')
    monkeypatch.setattr(plumbing, 'usable_cores', lambda: 6)
    monkeypatch.setattr(module, 'die_with_parent', lambda: None)
    found = []
    monkeypatch.setattr(module, 'run', lambda cfg, progress: found.append(threads_of(cfg)))
    assert execute(dict(out_dir='nowhere')) == '' and found == [6]

def test_a_run_waits_for_whoever_is_at_work_in_its_folder(tmp_path, monkeypatch):
    happened = []
    def run(cfg, progress):
        happened.append('run')
        if len(happened) < 4: raise FolderTaken('another process is at work')
    class Free:
        def release(self): happened.append('free')
    def lock(folder):
        happened.append(folder)
        if len(happened) < 3: raise FolderTaken('still')
        return Free()
    monkeypatch.setattr(module, 'run', run)
    monkeypatch.setattr(module, 'lock', lock)
    run_when_free(Config(out_dir=str(tmp_path)))
    assert happened == ['run', tmp_path, tmp_path, 'free', 'run']

def test_a_worker_takes_its_share_without_measuring_and_what_its_settings_name_before(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')   # and as it was after the test
    monkeypatch.setattr(module, 'die_with_parent', lambda: None)
    monkeypatch.setattr(plumbing, 'measured', None)
    found = []
    def run(cfg, progress): found.append(threads_of(cfg))
    monkeypatch.setattr(module, 'run', run)
    for settings in ({}, dict(threads=3)):
        assert execute(dict(settings, out_dir='nowhere'), 2) == ''
    assert found == [2, 3]
