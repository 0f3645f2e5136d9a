"""End to end: a run and its export, killed in each of its parts, end with the same bits.

`tests/bench/safety.py kills` does the same with twenty kills."""
import signal

import pytest
import torch

from lives import PARTS, contents, killed_and_again, live, noise, undisturbed

@pytest.fixture(scope='module')
def settings(tiny, tmp_path_factory):
    pictures = noise(tmp_path_factory.mktemp('pictures')/'noise')
    return dict(model=f'local-dir:{tiny}', dataset=pictures, epochs=3, batch_size=6, sae_epochs=60, lr=3e-4,
                log_every=1, precision='fp32', device='cpu', cache=None, save_every=0.)

@pytest.fixture(scope='module')
def whole(settings, tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes: sums of floats depend on it
    live(bool, 0)             # imports everything, and the others find it there
    yield undisturbed(settings, tmp_path_factory.mktemp('undisturbed')/'whole')
    torch.set_num_threads(threads)

@pytest.mark.parametrize('part', PARTS)
def test_killed_in_this_part_it_ends_with_the_same_bits(settings, whole, part, tmp_path):
    code, last, exported = killed_and_again(settings, whole, tmp_path/'killed', part, .4)
    assert code == -signal.SIGKILL or part == 'export'  # which is short
    assert part == 'export' or not exported

def test_there_is_something_to_compare(whole):
    names = {o.as_posix() for o in contents(whole/'export')}
    assert {'README.md', 'open_clip_model.safetensors', 'head.safetensors', 'sae.safetensors'} <= names
