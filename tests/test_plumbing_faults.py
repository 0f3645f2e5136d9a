"Faults: what the notebook leaves out, which is other threads and nested steps."
import os, signal, threading

import pytest

from sae_ft.plumbing.faults import Stop, Stopped, differences, differing

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
