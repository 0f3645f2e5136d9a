"End to end: the notebook nbs/05_finetune.ipynb, run as a user runs it: through papermill."
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
WEIGHTS = ROOT/'sae_ft'/'assets'/'iconclip'/'open_clip_model.safetensors'

def environment():
    "That of a user: nothing says that this is a test."
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    figures = 'module://matplotlib_inline.backend_inline'
    return env | {'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': figures}

def process(cwd, *words, **kw):
    return subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=environment(), capture_output=True,
                          text=True, timeout=600, **kw)

def papermill(cwd, **parameters):
    "Run the notebook in `cwd` with these parameters."
    options = [o for k, v in parameters.items() for o in ('-p', k, v)]
    return process(cwd, '-m', 'papermill', '--no-progress-bar', NOTEBOOK, 'out.ipynb', *options)

def message(done) -> str:
    "What papermill says last: one line, of a ValueError or FileNotFoundError."
    assert done.returncode != 0
    plain = re.sub(r'\x1b\[[\d;]*m', '', done.stderr)
    said = plain.split('Exception encountered at')[-1].strip().splitlines()
    assert len(said) == 2 and re.match('(ValueError|FileNotFoundError|BadPictures): ', said[1]), done.stderr
    return said[1]

SMALL = dict(limit=60, epochs=1, sae_epochs=5, lr=1e-4, batch_size=20)

@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "Two runs that differ in lam alone."
    cwd = tmp_path_factory.mktemp('papermill')
    for lam in (0.1, 20):
        done = papermill(cwd, **SMALL, lam=lam)
        assert done.returncode == 0, done.stderr
    return cwd

def test_lam_changes_the_recorded_settings_and_the_result(runs):
    weak, strong = sorted((load_run(o) for o in (runs/'runs').iterdir()), key=lambda o: o.config.lam)
    assert (weak.config.lam, strong.config.lam) == (.1, 20)
    names = [f.name for f in fields(Config)]
    assert [o for o in names if getattr(weak.config, o) != getattr(strong.config, o)] == ['lam']
    assert weak.results['before'] == strong.results['before']
    other = 'event', 'step', 'lr', 'grad_norm', 'loss', 'ce'
    parts = [k for k in weak.of('step')[-1] if k not in other]
    assert parts and all(strong.of('step')[-1][k] < weak.of('step')[-1][k] for k in parts)
    def moved(run): return 1 - np.mean([o['cka'] for o in run.of('drift')[0]['splits'].values()])
    assert moved(strong) < moved(weak)

def test_the_executed_notebook_shows_what_it_promises(runs):
    nb = nbformat.read(runs/'out.ipynb', as_version=4)
    outputs = [o for c in nb.cells if c.cell_type == 'code' for o in c.outputs]
    def shown(o): return str(o.get('text', '')) + str(o.get('data', {}).get('text/plain', ''))
    text = '\n'.join(map(shown, outputs))
    promised = 'zero-shot %', 'tuned %', 'accuracy', 'cka', 'fvu', 'preserved', 'mean of far'
    assert all(o in text for o in promised)
    assert sum('image/png' in o.get('data', {}) for o in outputs) >= 5
    assert not any(o.output_type == 'error' for o in outputs)

# --- input that cannot work

def folder_of_pictures(path, classes, n=4):
    "An image folder with random pictures."
    for c in classes:
        (path/c).mkdir(parents=True)
        for i in range(n):
            pixels = np.random.default_rng(i).integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path/c/f'{i}.png')
    return path

WRONG = [
    (dict(lamda=1), "unknown parameter 'lamda'.*lam"), (dict(method='qqq'), "unknown method 'qqq'.*sae-ft"),
    (dict(lam=-1), 'lam is -1'), (dict(k=100_000), 'larger than the dictionary'),
    (dict(dataset='/nowhere'), '/nowhere'), (dict(lr='fast'), "lr is 'fast'"),
    (dict(model='RN50', pretrained=str(WEIGHTS)), 'do not fit'),
    (dict(dataset='one'), 'one class only'), (dict(dataset='none'), 'no pictures')]

CELLS = """
import json, os, sys
from IPython.core.interactiveshell import InteractiveShell
nb, cases = json.load(open(sys.argv[1], encoding='utf-8')), json.loads(sys.argv[2])
shell, found = InteractiveShell.instance(), []
for case in cases:
    shell.reset(new_session=False)
    for cell in nb['cells']:
        if cell['cell_type'] != 'code': continue
        result = shell.run_cell(''.join(cell['source']), store_history=False)
        error = result.error_in_exec or result.error_before_exec
        if error: break
        if 'parameters' in cell['metadata'].get('tags', []): shell.user_ns.update(case)
    found.append([type(error).__name__, str(error), sorted(os.listdir('.'))])
json.dump(found, open(sys.argv[3], 'w'))
"""

@pytest.fixture(scope='module')
def refusals(tmp_path_factory):
    "What the notebook's cells say to each of WRONG, and what lies in the folder then; all in one process."
    cwd, answer = tmp_path_factory.mktemp('wrong'), tmp_path_factory.mktemp('answer')/'found.json'
    folder_of_pictures(cwd/'one', ['cat'])
    folder_of_pictures(cwd/'none', ['cat', 'dog'], 0)
    done = process(cwd, '-c', CELLS, NOTEBOOK, json.dumps([o for o, _ in WRONG]), answer)
    assert done.returncode == 0, done.stderr
    return json.loads(answer.read_text())

@pytest.mark.parametrize('i', range(len(WRONG)), ids=[str(o)[:30] for o, _ in WRONG])
def test_wrong_input_stops_with_one_sentence_and_leaves_nothing(i, refusals):
    kind, said, left = refusals[i]
    assert kind in ('ValueError', 'FileNotFoundError') and re.search(WRONG[i][1], said) and '\n' not in said
    assert left == ['none', 'one']

@pytest.mark.parametrize('i', [0, 4], ids=['a setting', 'pictures'])
def test_papermill_shows_that_sentence_as_one_line(i, tmp_path):
    wrong, says = WRONG[i]
    assert re.search(says, message(papermill(tmp_path, **wrong)))
    assert [o.name for o in tmp_path.iterdir()] == ['out.ipynb']

def test_own_pictures_with_a_broken_one_are_refused_or_skipped(tmp_path):
    data = folder_of_pictures(tmp_path/'data', ['cat', 'dog', 'tree'], 20)
    (data/'cat'/'3.png').write_bytes(b'no picture')
    said = message(papermill(tmp_path, dataset=data, out_dir='mine'))
    assert '1 of 60' in said and '3.png' in said and not (tmp_path/'mine').exists()
    done = papermill(tmp_path, dataset=data, epochs=1, sae_epochs=2, batch_size=8, out_dir='mine',
                     on_bad_image='skip', class_names='a cat,a dog,a tree')
    assert done.returncode == 0, done.stderr
    provenance = load_run(tmp_path/'mine').provenance
    assert provenance['classnames'] == ['a cat', 'a dog', 'a tree']
    assert sum(provenance['sizes'][k] for k in ('train', 'val', 'test')) == 59

def test_parameters_are_the_settings_with_their_defaults_and_documented():
    nb = nbformat.read(NOTEBOOK, as_version=4)
    cell, = [c for c in nb.cells if 'parameters' in c.metadata.get('tags', [])]
    default = {f.name: f.default for f in fields(Config)}
    lines = {o.targets[0].id: o for o in ast.parse(cell.source).body}
    assert {k: ast.literal_eval(o.value) for k, o in lines.items()} == default
    assert all('#' in line for line in cell.source.splitlines())
    text = '\n'.join(c.source for c in nb.cells if c.cell_type == 'markdown')
    documented = re.findall(r'^\| `(\w+)` \| `(.*?)` \| \S', text, re.MULTILINE)
    assert {k: ast.literal_eval(v) for k, v in documented} == default
    assert MISSING not in default.values()
