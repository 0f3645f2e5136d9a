"Shares of a batch, and what processes that work together tell each other."
import os
import subprocess
import sys
from math import ceil
from pathlib import Path

import torch
from hypothesis import given, settings, strategies as st

from sae_ft.plumbing.several import Team, team

ROOT = Path(__file__).resolve().parent.parent

def one_of(rank, of):
    "A member of a team, of whose colleagues nothing is asked."
    found = Team.__new__(Team)
    found.rank, found.of = rank, of
    return found

@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9))
def test_shares_are_equally_long_and_together_the_batch(n, of):
    shares = [one_of(i, of).share(range(n)) for i in range(of)]
    assert {len(o) for o in shares} == {ceil(n/of)}
    assert sum(shares, [])[:n] == list(range(n))
    assert [one_of(i, of).share(torch.arange(n)).tolist() for i in range(of)] == shares

def test_alone_nothing_is_copied():
    rows, x, module = [1, 2], torch.randn(2, 3), torch.nn.Linear(2, 2)
    alone = team()
    assert alone.share(rows) is rows and alone.gathered(x, 2) is x and alone.same(module) is module
    assert alone.gathered(None, 2) is None and (alone.first, alone.of, alone.agreed(2.5)) == (True, 1, 2.5)
    assert alone.mean(x, 2) == x.mean() and not list(alone.wait() or [])

SCRIPT = '''
import os, sys, time, torch, torch.distributed as dist
from pathlib import Path
from sae_ft.plumbing.several import launched, team

def talk():
    dist.init_process_group('gloo')
    t = team()
    assert (t.of, t.rank) == (2, int(os.environ['RANK']))
    x = torch.arange(10.).view(5, 2)
    assert torch.equal(t.gathered(t.share(x), 5), x) and t.gathered(None, 5) is None
    assert torch.equal(t.gathered(t.share(torch.arange(5)), 5), torch.arange(5))
    assert t.mean(t.share(x), 5) == x.mean()
    assert (t.agreed(t.rank + 3), t.agreed(.5 + t.rank)) == (3, .5)
    net = torch.nn.Linear(2, 2)
    net.weight.data.fill_(t.rank + 1.)
    assert (t.same(net).weight == 1).all()
    with t.first_goes():
        if t.first:
            time.sleep(.3)
            Path('there').write_text('')
        assert Path('there').exists()

def fail(): sys.exit(7)

launched(talk, processes=2)
try: launched(fail, processes=2)
except RuntimeError as e: print(e)
from accelerate import Accelerator
Accelerator(cpu=True)
try: launched(talk, processes=2)
except RuntimeError as e: print(e)
'''

def test_two_processes_agree_and_a_failure_is_one_sentence(tmp_path):
    env = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    words = [sys.executable, '-c', SCRIPT]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    said = [o for o in done.stdout.splitlines() if not o.startswith('Launching')]
    assert said == [
        'one of 2 processes ended with exit code 7: what it printed says why, and the same call goes on '
        'from what was kept.',
        'several processes cannot be started where a training has begun before: restart this notebook, '
        'or use torchrun.']
