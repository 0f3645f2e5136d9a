"Who joins whom, and what is refused; the processes themselves are in test_e2e_several."
from types import SimpleNamespace

import pytest

from sae_ft import together as module
from sae_ft.settings import Config
from sae_ft.together import join, together
from tiny_runs import TINY, one_line

def never(*args, **kwargs): raise AssertionError('nothing was to be started')

def test_processes_are_started_for_what_is_not_finished(done, monkeypatch):
    started = []
    monkeypatch.setattr(module, 'launched', lambda run, *args, processes: started.append((args, processes)))
    two = Config(**TINY, num_processes=2)
    together(never, two, True)
    assert started == [((two, True), 2)]
    together(never, Config(**TINY), True)
    together(never, Config(**TINY, num_processes=2, out_dir=str(done.folder)), True)
    assert len(started) == 1

def test_who_was_started_joins(monkeypatch):
    asked = []
    monkeypatch.setattr(module, 'in_team', lambda: True)
    monkeypatch.setattr(module, 'launched', never)
    def accelerator(device):
        asked.append(device)
        return SimpleNamespace(distributed_type='NO')
    monkeypatch.setattr(module, 'accelerator', accelerator)
    together(never, Config(**TINY), True)
    assert asked == ['cpu']
    with pytest.raises(ValueError) as error: join(Config(**TINY, num_processes=3))
    assert one_line(error) == 'num_processes is 3, and 1 were started: leave it out.'

def test_fsdp_is_refused(monkeypatch):
    monkeypatch.setattr(module, 'accelerator', lambda o: SimpleNamespace(distributed_type='FSDP'))
    with pytest.raises(ValueError, match='^FSDP cuts parameters into pieces'): join(Config(**TINY))
