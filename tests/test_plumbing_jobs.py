"Jobs in processes of their own, and executors that lose them."
import os
import signal
import subprocess
import sys
from concurrent.futures import Future, ProcessPoolExecutor

import psutil
import pytest

from sae_ft.plumbing.jobs import InProcess, answers

def test_a_job_imports_nothing_of_the_method_where_it_waits():
    code = 'import sys, sae_ft.plumbing.jobs; print([o for o in ("torch", "pandas") if o in sys.modules])'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'

def parent_and_child():
    "In a worker that may not have children, as dask's: what is called there."
    return InProcess('os.getppid')(), os.getpid()

def test_a_worker_that_is_a_daemon_has_processes_all_the_same():
    from multiprocessing import get_context
    spawn = get_context('spawn')
    ours, theirs = spawn.Pipe(duplex=False)
    worker = spawn.Process(target=in_daemon, args=(theirs,), daemon=True)
    worker.start()
    parent, me = ours.recv()
    worker.join()
    assert parent == me == worker.pid

def in_daemon(answer): answer.send(parent_and_child())

def test_a_pool_of_processes_is_an_executor():
    from multiprocessing import get_context
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        found = dict(answers(pool, InProcess('os.path.basename'), dict(a=('x/one',), b=('x/two',))))
    assert found == dict(a='one', b='two')

def test_what_the_function_raises_is_a_process_without_an_answer(capfd):
    assert InProcess('os.path.basename')(3) is None and 'TypeError' in capfd.readouterr().err

def test_who_waits_is_ended_and_ends_the_one_who_works():
    code = "from sae_ft.plumbing.jobs import InProcess; InProcess('time.sleep')(60)"
    p = subprocess.Popen([sys.executable, '-c', code], stderr=subprocess.DEVNULL)
    works = None
    while not works: works = [o for o in psutil.Process(p.pid).children() if asleep(o)]
    p.send_signal(signal.SIGINT)
    assert p.wait(20) and not psutil.wait_procs(works, timeout=20)[1]

def asleep(process):
    "Whether it is the one that works, and does (multiprocessing has a process of its own beside it)."
    try: return '--multiprocessing-fork' in process.cmdline() and process.cpu_times().user > 0
    except psutil.NoSuchProcess: return False

def test_submitit_is_given_the_same_call_again():
    job = InProcess('os.path.basename')
    again = job.checkpoint('x/one')
    assert (again.function, again.args, again.kwargs) == (job, ('x/one',), {})

@pytest.mark.parametrize('losses, submitted', [(0, 1), (1, 2), (2, 3), (3, 3)])
def test_a_lost_call_is_submitted_again_but_not_for_ever(losses, submitted):
    seen = []
    class Executor:
        def submit(self, job, *args):
            seen.append(args)
            future = Future()
            if len(seen) > losses: future.set_result('done')
            else: future.set_exception(ConnectionError('gone'))
            return future
    (name, answer), = answers(Executor(), InProcess('x.y'), dict(a=(1, 2)), pause=0)
    assert name == 'a' and seen == submitted*[(1, 2)]
    assert answer == 'done' if losses < 3 else isinstance(answer, ConnectionError)
