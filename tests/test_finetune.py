"The notebook nbs/05_finetune.ipynb, run as a user runs it: through papermill."
import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from sae_ft.runs import load_run
from sae_ft.settings import Config

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT/'nbs'/'05_finetune.ipynb'

def papermill(cwd, **parameters):
    "Run the notebook in `cwd` with these parameters; returns the process and the lines of its error."
    args = [o for k, v in parameters.items() for o in ('-p', k, str(v))]
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | {'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'module://matplotlib_inline.backend_inline'}
    return subprocess.run([sys.executable, '-m', 'papermill', '--no-progress-bar', NOTEBOOK, 'out.ipynb', *args], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)

def message(process) -> str:
    "What papermill says last: one line, of a ValueError or FileNotFoundError."
    assert process.returncode != 0
    said = re.sub(r'\x1b\[[\d;]*m', '', process.stderr).split('Exception encountered at')[-1].strip().splitlines()
    assert len(said) == 2 and re.match('(ValueError|FileNotFoundError|BadPictures): ', said[1]), process.stderr
    return said[1]

SMALL = dict(limit=60, epochs=1, sae_epochs=5, lr=1e-4, batch_size=20)

@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "Two runs that differ in lam alone."
    cwd = tmp_path_factory.mktemp('papermill')
    for lam in (0.1, 20):
        process = papermill(cwd, **SMALL, lam=lam)
        assert process.returncode == 0, process.stderr
    return cwd

def test_lam_changes_the_recorded_settings_and_the_result(runs):
    weak, strong = (load_run(o) for o in sorted((runs/'runs').iterdir(), key=lambda o: load_run(o).config.lam))
    assert (weak.config.lam, strong.config.lam) == (.1, 20)
    differ = [f.name for f in fields(Config) if getattr(weak.config, f.name) != getattr(strong.config, f.name)]
    assert differ == ['lam']
    assert weak.results['before'] == strong.results['before']
    parts = [k for k in weak.of('step')[-1] if k not in ('event', 'step', 'lr', 'grad_norm', 'loss', 'ce')]
    assert parts and all(strong.of('step')[-1][k] < weak.of('step')[-1][k] for k in parts)
    def moved(run): return 1 - np.mean([o['cka'] for o in run.of('drift')[0]['splits'].values()])
    assert moved(strong) < moved(weak)

def test_the_executed_notebook_shows_what_it_promises(runs):
    nb = nbformat.read(runs/'out.ipynb', as_version=4)
    outputs = [o for c in nb.cells if c.cell_type == 'code' for o in c.outputs]
    text = '\n'.join(str(o.get('text', '')) + str(o.get('data', {}).get('text/plain', '')) for o in outputs)
    assert all(o in text for o in ('zero-shot %', 'tuned %', 'accuracy', 'cka', 'fvu', 'preserved', 'mean of far'))
    assert sum('image/png' in o.get('data', {}) for o in outputs) >= 5 and not any(o.output_type == 'error' for o in outputs)

WRONG = [
    (dict(lamda=1), "unknown parameter 'lamda'.*lam"), (dict(method='qqq'), "unknown method 'qqq'.*sae-ft"), (dict(lam=-1), 'lam is -1'),
    (dict(k=100_000), 'larger than the dictionary'), (dict(dataset='/nowhere'), '/nowhere'), (dict(lr='fast'), "lr is 'fast'"),
    (dict(model='RN50', pretrained=ROOT/'sae_ft'/'assets'/'iconclip'/'open_clip_model.safetensors'), 'do not fit'),
]

@pytest.mark.parametrize('wrong, says', WRONG, ids=lambda o: str(o)[:30])
def test_a_wrong_parameter_stops_with_one_line_and_leaves_nothing(wrong, says, tmp_path):
    assert re.search(says, message(papermill(tmp_path, **wrong)))
    assert [o.name for o in tmp_path.iterdir()] == ['out.ipynb']

def folder_of_pictures(path, classes, n=4):
    "An image folder with random pictures."
    for c in classes:
        (path/c).mkdir(parents=True)
        for i in range(n): Image.fromarray(np.random.default_rng(i).integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(path/c/f'{i}.png')
    return path

@pytest.mark.parametrize('classes, n, says', [(['cat'], 4, 'one class only'), (['cat', 'dog'], 0, 'no pictures')], ids=str)
def test_data_that_cannot_work_stops_with_one_line_and_leaves_nothing(classes, n, says, tmp_path):
    data = folder_of_pictures(tmp_path/'data', classes, n)
    assert says in message(papermill(tmp_path, dataset=data))
    assert sorted(o.name for o in tmp_path.iterdir()) == ['data', 'out.ipynb']

def test_own_pictures_with_a_broken_one_are_refused_or_skipped(tmp_path):
    data = folder_of_pictures(tmp_path/'data', ['cat', 'dog', 'tree'], 20)
    (data/'cat'/'3.png').write_bytes(b'no picture')
    said = message(papermill(tmp_path, dataset=data, out_dir='mine'))
    assert '1 of 60' in said and '3.png' in said and not (tmp_path/'mine').exists()
    process = papermill(tmp_path, dataset=data, epochs=1, sae_epochs=2, batch_size=8, out_dir='mine', on_bad_image='skip', class_names='a cat,a dog,a tree')
    assert process.returncode == 0, process.stderr
    about = load_run(tmp_path/'mine').provenance
    assert about['classnames'] == ['a cat', 'a dog', 'a tree'] and sum(about['sizes'][k] for k in ('train', 'val', 'test')) == 59

def test_parameters_are_the_settings_with_their_defaults_and_documented():
    nb = nbformat.read(NOTEBOOK, as_version=4)
    cell, = [c for c in nb.cells if 'parameters' in c.metadata.get('tags', [])]
    lines = {o.targets[0].id: o for o in ast.parse(cell.source).body}
    assert {k: ast.literal_eval(o.value) for k, o in lines.items()} == {f.name: f.default for f in fields(Config)}
    assert all('#' in line for line in cell.source.splitlines())
    documented = re.findall(r'^\| `(\w+)` \| `(.*?)` \| \S', '\n'.join(c.source for c in nb.cells if c.cell_type == 'markdown'), re.MULTILINE)
    assert {k: ast.literal_eval(v) for k, v in documented} == {f.name: f.default for f in fields(Config)}
    assert not any(f.default is MISSING for f in fields(Config))
