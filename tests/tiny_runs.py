"A tiny SAE-FT run on parts of the embedded default, made once, and what tests of runs share."
import pytest
from PIL import Image

from sae_ft.experiment import run
from sae_ft.settings import Config

TINY = dict(limit=64, epochs=1, batch_size=32, sae_epochs=3, lr=1e-4, precision='fp32', device='cpu',
            log_every=1, cache=None)

def one_line(error) -> str:
    "The message, which must be one sentence on one line."
    text = str(error.value)
    assert '\n' not in text and 10 < len(text) < 400, text
    return text

@pytest.fixture(scope='session')
def done(tmp_path_factory):
    "A tiny SAE-FT run."
    return run(Config(**TINY, out_dir=str(tmp_path_factory.mktemp('runs')/'first')), progress=False)

@pytest.fixture(scope='session')
def pictures(tmp_path_factory):
    "A folder with eight pictures of each of three classes."
    root = tmp_path_factory.mktemp('pictures')
    for c in ('cat', 'dog', 'tree'):
        (root/c).mkdir()
        for i in range(8): Image.effect_noise((20, 20), 40 + 10*i).convert('RGB').save(root/c/f'{i}.png')
    return str(root)
