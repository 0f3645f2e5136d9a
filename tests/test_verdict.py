"The verdict: a run records how it did on validation pictures, and says when tuning brought nothing."
import numpy as np
import pytest
from dataclasses import replace
from PIL import Image

from sae_ft.experiment import run
from sae_ft.settings import Config
from sae_ft.verdict import brought_nothing
from tiny_runs import TINY, done  # noqa: F401

def test_a_run_knows_its_opponents(done):
    found = done.results['validation']
    assert set(found) == {'tuned', 'zero_shot', 'commonest', 'class_name', 'n'} and found['n'] == 64
    assert found['tuned'] == done.of('epoch')[-1]['val_accuracy']  # the weights of the last epoch, unchanged
    again = run(replace(done.config, method='zero-shot', out_dir=f'{done.folder}-zero-shot'), progress=False)
    same = again.results['validation']
    assert same['tuned'] == same['zero_shot'] == found['zero_shot']
    assert brought_nothing(again) == ''

@pytest.fixture(scope='module')
def noise(tmp_path_factory):
    "Pictures of noise, 30 of one class and 15 of another: there is nothing to learn."
    root, rng = tmp_path_factory.mktemp('noise'), np.random.default_rng(0)
    for name, n in dict(linen=30, wool=15).items():
        (root/name).mkdir()
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(root/name/f'{i:02}.png')
    return str(root)

def test_a_run_that_brought_nothing_says_so(noise, tmp_path, capsys):
    cfg = Config(**TINY | dict(lr=1e-8), dataset=noise, lam=1000., out_dir=str(tmp_path/'a'))
    done = run(cfg)
    said = brought_nothing(done)
    assert said.startswith('Tuning brought nothing: of 4 validation pictures')
    assert said in capsys.readouterr().out
    assert "'linen' always 75.0 %" in said and 'lower lam (now 1000;' in said
    assert done.provenance['said'] and 'were taken from train' in done.provenance['said'][0]
