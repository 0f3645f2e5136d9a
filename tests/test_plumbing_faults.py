"Faults: what the notebook leaves out, which is other threads and nested steps."
import os, signal, threading

import pytest

from sae_ft.plumbing.faults import Interrupted, Stop, Stopped, differences, differing

def test_the_outermost_held_ends_the_step():
    done = []
    with pytest.raises(Stopped), Stop() as stop:
        with stop.held():
            with stop.held(): os.kill(os.getpid(), signal.SIGTERM)
            done.append('rest of the step')
        done.append('next step')
    assert done == ['rest of the step']

def test_another_thread_leaves_the_handler_alone():
    before, seen = signal.getsignal(signal.SIGTERM), []
    def work():
        with Stop(): seen.append(signal.getsignal(signal.SIGTERM))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before] and signal.getsignal(signal.SIGTERM) == before

def test_the_handler_before_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), Stop():
        assert signal.getsignal(signal.SIGTERM) != before
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before

def test_differences_name_all_and_differing_gives_values():
    old, new = dict(a=1, b=[1, 2], c=None), dict(b=(1, 2), a=2, d=3)
    assert differences(old, new) == 'a 1 there and 2 here, d None there and 3 here'
    assert differing(old, new) == [('a', 1, 2), ('d', None, 3)]

@pytest.mark.parametrize('number, kind', [(signal.SIGTERM, Stopped), (signal.SIGINT, Interrupted)])
def test_the_first_of_both_signals_is_raised_at_the_end_of_the_step(number, kind):
    done = []
    with pytest.raises(kind), Stop() as stop:
        with stop.held():
            signal.raise_signal(number)
            for o in (signal.SIGTERM, signal.SIGINT): signal.raise_signal(o)
            done.append('rest of the step')
    assert done == ['rest of the step']

def test_a_signal_that_is_ignored_stays_so():
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop(): signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally: signal.signal(signal.SIGINT, old)

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
def test_a_child_leaves_ctrl_c_to_its_parent():
    with Stop():
        if not (child := os.fork()):
            signal.raise_signal(signal.SIGINT)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
