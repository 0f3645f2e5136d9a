"End to end: eight runs on dask's workers and as submitit's jobs, one of which is killed with its run."
import signal
from pathlib import Path

import psutil
import pytest

from sae_ft.experiment import run
from sae_ft.plumbing.files import digest, read_tensors
from sae_ft.plumbing.threads import same_threads
from sae_ft.runs import load_run
from sae_ft.settings import Config
from sae_ft.sweep import grid, sweep

def eight(root, pictures, tiny):
    "The runs: a second each, and what takes long in them keeps its state after every step."
    how = dict(model=f'local-dir:{tiny}', dataset=pictures, epochs=4, batch_size=4, sae_epochs=2, lr=1e-4,
               precision='fp32', device='cpu', threads=1, log_every=1, save_every=0., cache=None, workers=0)
    return grid(str(root), method=['ft', 'l2'], seed=[0, 1, 2, 3], **how)

def outcome(folder):
    "All of a run but the seconds it took: checksums of model and SAE, record, answers."
    done = load_run(folder)
    files = [digest(*read_tensors(done.folder/o)) for o in ('model.safetensors', 'sae.safetensors')]
    record = [{k: v for k, v in o.items() if k not in ('seconds', 'took')} for o in done.metrics]
    return files, record, done.predictions.to_dict()

@pytest.fixture(scope='module')
def alone(pictures, tiny, tmp_path_factory):
    "Name of a run -> its outcome, one after the other in this process."
    runs = eight(tmp_path_factory.mktemp('alone'), pictures, tiny)
    with same_threads():
        for o in runs: run(Config(**o), progress=False)
    return {Path(o['out_dir']).name: outcome(o['out_dir']) for o in runs}

def steps_of(folder):
    "How many steps the record of a run has."
    file = folder/'metrics.jsonl'
    return file.read_text().count('"event": "step"') if file.exists() else 0

class Killer:
    """An executor that kills the first of its workers that is in the middle of a run, with all it started.

    Three calls at a time are handed on, since submitit begins as many as it gets."""
    def __init__(self, executor): self.executor, self.killed, self.jobs = executor, None, []

    def submit(self, *call):
        self.jobs.append(Watched(self, call))
        return self.jobs[-1]

    def look(self):
        "Begin what there is room for, and kill once."
        waiting = [o for o in self.jobs if not o.job]
        busy = sum(not o.job.done() for o in self.jobs if o.job)
        for o in waiting[:max(0, 3 - busy)]: o.job = self.executor.submit(*o.call)
        for folder in [o.folder for o in self.jobs if o.job] if self.killed is None else ():
            if 3 <= steps_of(folder) < 18 and (claim := folder/'.claim').exists():
                self.killed = folder.name
                pid, = (int(o[4:]) for o in claim.read_text().splitlines() if o.startswith('pid='))
                for o in (psutil.Process(pid), psutil.Process(pid).parent()): o.send_signal(signal.SIGKILL)
                break

class Watched:
    "A job, with a look around at each question."
    def __init__(self, killer, call):
        self.killer, self.call, self.job, self.folder = killer, call, None, Path(call[1]['out_dir'])
    def result(self): return self.job.result()
    def done(self):
        self.killer.look()
        return self.job is not None and self.job.done()

def check(executor, runs, alone):
    "All eight end, each was begun once but the killed one, and all bits are those of a run alone."
    killer = Killer(executor)
    table = sweep(runs, progress=False, executor=killer)
    assert list(table.state) == 8*['done'], list(table.error)
    begun_again = {Path(o).name: len(load_run(o).provenance.get('resumed', [])) for o in table.folder}
    assert killer.killed and begun_again == {o: int(o == killer.killed) for o in alone}   # none twice
    for o in table.folder: assert outcome(o) == alone[Path(o).name], o
    assert list(sweep(runs, progress=False, executor=killer).state) == 8*['was done']

def test_three_workers_of_dask_one_killed(pictures, tiny, alone, tmp_path):
    distributed = pytest.importorskip('distributed')
    local = dict(n_workers=3, threads_per_worker=1, dashboard_address=None, host='127.0.0.1', silence_logs=50)
    with distributed.LocalCluster(**local) as cluster, distributed.Client(cluster) as client:
        check(client.get_executor(), eight(tmp_path, pictures, tiny), alone)

def test_jobs_of_submitit_one_killed(pictures, tiny, alone, tmp_path, monkeypatch):
    submitit = pytest.importorskip('submitit')
    monkeypatch.setattr(submitit.LocalJob, '_results_timeout_s', 1)   # seconds until a lost job is given up
    executor = submitit.AutoExecutor(folder=tmp_path/'jobs', cluster='local')
    executor.update_parameters(timeout_min=20)
    check(executor, eight(tmp_path/'runs', pictures, tiny), alone)
