"Fixtures that several files share, each made once; what runs share lies in a folder of the session."
import os, signal, tempfile

import pytest

from fake_runs import fake_results
from sae_ft.runs import read_runs
from studies import report_page, still_study, study, tiny_run
from tiny_clip import tiny
from tiny_runs import done, pictures

__all__ = ['done', 'pictures', 'report_page', 'still_study', 'study', 'tiny', 'tiny_run']

def pytest_configure(config):
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.shared = tempfile.TemporaryDirectory(prefix='sae_ft-')
    os.environ['SAE_FT_CACHE'] = config.shared.name  # not the user's, for this process and those it starts

def pytest_unconfigure(config): config.shared.cleanup()

@pytest.fixture(scope='session')
def made_up(tmp_path_factory):
    "The folder of made-up records of three seeds."
    return fake_results(tmp_path_factory.mktemp('fake')/'results', seeds=(0, 1, 2))

@pytest.fixture(scope='session')
def main(made_up): return read_runs(made_up/'main')
