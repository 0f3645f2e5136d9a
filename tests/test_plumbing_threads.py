"Threads: what a process may use, what is best when, and how they wait; quotas are in the notebook."
import math
import os
import subprocess
import sys

import pytest
import torch

from sae_ft.plumbing import threads
from sae_ft.plumbing.threads import (best_threads, given_threads, measured, quota_cores, same_threads,
                                     share_of_threads, usable_cores)

class Processor:
    "A made-up one with its clock: so many of its cores are free."
    def __init__(self, free): self.free, self.now, self.counts = free, 0., []
    def clock(self): return self.now
    def work(self):
        n = torch.get_num_threads()
        self.counts.append(n)
        self.now += 1/min(n, self.free) + .01*n + .2*(n > self.free)

def best(free, most=8, **kw):
    made = Processor(free)
    return best_threads(most, work=made.work, clock=made.clock, **kw), made

@pytest.fixture
def free_choice(monkeypatch): monkeypatch.delenv('OMP_NUM_THREADS', raising=False)

@pytest.mark.parametrize('free,n', [(8, 8), (5, 4), (4, 4), (3, 2), (1, 1)])
def test_a_run_takes_the_most_threads_that_help(free, n, free_choice): assert best(free)[0] == n

def test_each_number_takes_its_turn_three_times_at_least(free_choice):
    counts = best(8, 6, seconds=0)[1].counts
    assert counts == 4*[6, 3, 1]

def test_one_thread_needs_no_measuring(free_choice):
    assert best(1, 1)[1].counts == []

@pytest.mark.parametrize('text,n', [('1', 1), ('3', 3), ('4,2', 4), (' 2 ', 2)])
def test_what_the_user_asks_for_is_taken_without_measuring(text, n, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', text)
    monkeypatch.setattr(threads, 'measured', None)
    assert best_threads() == best_threads(8) == given_threads() == share_of_threads(2) == n

@pytest.mark.parametrize('text', ['', '0', '-1', 'two', '1.5'])
def test_what_is_no_number_of_threads_is_as_if_it_were_not_there(text, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', text)
    assert given_threads() is None
    assert best(3)[0] == 2

def test_a_share_is_part_of_what_the_process_may_use(monkeypatch, free_choice):
    monkeypatch.setattr(threads, 'usable_cores', lambda: 7)
    assert [share_of_threads(n) for n in (1, 2, 3, 8)] == [7, 3, 2, 1]

@pytest.mark.parametrize('quota,n', [(math.inf, 6), (2.5, 3), (2., 2), (.1, 1), (64., 6)])
def test_cores_are_those_of_the_affinity_and_of_the_quota(quota, n, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(threads, 'quota_cores', lambda: quota)
    assert usable_cores() == n

@pytest.mark.parametrize('cores,n', [(4, 4), (None, 1)])
def test_where_there_is_no_affinity_all_cores_count(cores, n, monkeypatch):
    monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: cores)
    monkeypatch.setattr(threads, 'quota_cores', lambda: math.inf)
    assert usable_cores() == n

def groups(root, lines, **quotas):
    "Made-up files of control groups: folder under /sys/fs/cgroup -> cpu.max."
    (root/'proc/self').mkdir(parents=True)
    (root/'proc/self/cgroup').write_text(lines)
    for folder, text in quotas.items():
        path = root/'sys/fs/cgroup'/folder
        path.mkdir(parents=True, exist_ok=True)
        (path/'cpu.max').write_text(text)
    return str(root)

def test_the_smallest_quota_on_the_way_up_counts_and_no_other(tmp_path):
    root = groups(tmp_path, '0::/a/b\n', **{'a/b': '800000 100000\n', 'a': '400000 100000\n',
                                            'a/b/c': '100000 100000\n', 'd': '100000 100000\n'})
    assert quota_cores(root) == 4

@pytest.mark.parametrize('text', ['', 'max', 'max 100000', '100000 0', '0 100000', 'x y', '1 2 3'])
def test_what_is_no_quota_limits_nothing(text, tmp_path):
    assert quota_cores(groups(tmp_path, '0::/\n', **{'': text})) == math.inf

@pytest.mark.parametrize('lines', ['', '0::/../../a\n', '0::/a:b\n', 'nonsense\n', '5:memory:/d\n'])
def test_odd_paths_of_groups_do_no_harm(lines, tmp_path):
    assert quota_cores(groups(tmp_path, lines, d='100000 100000')) == math.inf

def test_a_path_stays_below_the_groups(tmp_path):
    (tmp_path/'sys/fs').mkdir(parents=True)
    (tmp_path/'sys/fs/cpu.max').write_text('100000 100000')
    assert quota_cores(groups(tmp_path, '0::/..\n')) == math.inf

def test_without_control_groups_nothing_limits(tmp_path): assert quota_cores(str(tmp_path)) == math.inf

def test_the_process_is_afterwards_as_before():
    before, state = torch.get_num_threads(), torch.get_rng_state()
    measured([2, 1], seconds=0)
    with pytest.raises(KeyError), same_threads():
        torch.set_num_threads(before + 1)
        raise KeyError
    assert torch.get_num_threads() == before and torch.equal(torch.get_rng_state(), state)

SAID = "print({k: v for k, v in os.environ.items() if k in sae_ft.WAIT})"
ASLEEP = dict(OMP_WAIT_POLICY='PASSIVE', GOMP_SPINCOUNT='100000', KMP_BLOCKTIME='1')

@pytest.mark.parametrize('imports,user,found', [
    ('sae_ft, torch', {}, ASLEEP),
    ('sae_ft.plumbing.threads', {}, ASLEEP),
    ('sae_ft', dict(OMP_WAIT_POLICY='ACTIVE'), dict(OMP_WAIT_POLICY='ACTIVE')),
    ('sae_ft', dict(KMP_BLOCKTIME='200'), dict(KMP_BLOCKTIME='200')),
    ('sae_ft', dict(GOMP_SPINCOUNT='100'), dict(GOMP_SPINCOUNT='100')),
    ('torch, sae_ft', {}, {})])
def test_threads_sleep_unless_the_user_says_otherwise_or_it_is_too_late(imports, user, found):
    ours = {*ASLEEP, 'KMP_LIBRARY'}
    env = {k: v for k, v in os.environ.items() if k not in ours} | user
    words = [sys.executable, '-c', f'import os\nimport {imports}\nimport sae_ft\n{SAID}']
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(found)

def test_the_setting_is_there_before_torch():
    code = "import sys, sae_ft; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'False'
