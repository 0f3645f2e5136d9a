"""End to end: two processes and one are the same run.

The functions that the processes call are here, too: this file is what torchrun starts."""
import json, os, re, subprocess, sys, time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from datasets import concatenate_datasets
from PIL import Image

from sae_ft.clip import load_clip, zero_shot
from sae_ft.evaluation import embed_on_disk
from sae_ft.experiment import run
from sae_ft.methods import METHODS, Context, get_method
from sae_ft.plumbing.blocks import Blocks
from sae_ft.plumbing.devices import accelerator
from sae_ft.plumbing.files import read_tensors, write_tensors
from sae_ft.plumbing.resume import Checkpoint
from sae_ft.plumbing.several import team
from sae_ft.runs import load_run
from sae_ft.sae import TopKSAE
from sae_ft.settings import Config
from sae_ft.suites import load_suite
from sae_ft.trainer import finetune

ROOT = Path(__file__).resolve().parent.parent
ENV = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | {
    'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT/"tests"}', 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1'}
TORCHRUN = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
SMALL = dict(epochs=4, batch_size=7, sae_epochs=5, lr=1e-5, log_every=1, precision='fp32', device='cpu',
             cache=None, preset='iconclip')  # a batch of seven cannot be halved
ROWS = ['sae-ft', 'flyp', 'nuclear', 'ldifs', 'l2-sp', 'drrho-flyp', 'lp-ft']

@pytest.fixture(scope='module', autouse=True)
def one_thread():
    "As in the processes that are started."
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "A folder with sixteen pictures of each of three classes."
    root, rng = tmp_path_factory.mktemp('pictures'), np.random.default_rng(0)
    for c in ('cat', 'dog', 'tree'):
        (root/c).mkdir()
        for i in range(16):
            Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(root/c/f'{i}.png')
    return str(root)

# --- what processes do

def tune(name, pictures, rows, folder):
    "Fine-tune by some methods; the first process writes weights, and the lines of the record."
    accelerator('cpu')
    torch.set_num_threads(1)
    clip, suite = load_clip(name), load_suite(pictures, progress=False)
    for row in rows:
        cfg, method = Config(model=name, method=row, dataset=pictures, **SMALL), get_method(row)
        torch.manual_seed(0)
        model = zero_shot(clip, suite.classnames, suite.templates, keep_text=True)
        sae = TopKSAE(clip.d, k=8).requires_grad_(False)
        ctx = Context(clip, model, suite.classnames, suite.templates, sae, lambda: torch.randn(64, clip.d))
        reg = method.regulariser and method.regulariser(ctx)
        objective = method.objective and method.objective(ctx)
        frozen = ctx.frozen
        with torch.no_grad():  # where nothing has moved yet, singular values are made of rounding errors
            for p in model.parameters(): p += .01*torch.randn(p.shape)
        if team().first: write_tensors(Path(folder)/'before.safetensors', model.state_dict())
        _, lines = finetune(model, suite, reg, cfg, method.stages, progress=False, objective=objective,
                            frozen=frozen)
        if team().first:
            write_tensors(Path(folder)/f'{row}.safetensors', model.state_dict(), lines=json.dumps(lines),
                          processes=str(team().of))

def watched(settings, folder):
    "A whole run; each process leaves a list of what it changed in the run folder."
    changed, place = [], settings['out_dir']
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    def hook(event, args):
        if event == 'open' and not (isinstance(args[2], int) and args[2] & writing): return
        if event not in ('open', 'os.rename', 'os.remove', 'os.link', 'os.rmdir'): return
        if str(args[0]).startswith(place): changed.append(str(args[0]))
    sys.addaudithook(hook)
    done = run(Config(**settings), progress=False)
    Path(folder, f'changed-{team().rank}').write_text('\n'.join(changed))
    assert done.processes == team().of == 2

def embedded(name, pictures, folder):
    "Training pictures, eight times over, into blocks; each process leaves the first rows of those it wrote."
    accelerator('cpu')
    torch.set_num_threads(1)
    clip, suite, wrote = load_clip(name), load_suite(pictures, progress=False), []
    model = zero_shot(clip, suite.classnames, suite.templates)
    many = concatenate_datasets([suite.train]*8)
    write = Blocks.write
    Blocks.write = lambda self, start, **tensors: wrote.append(start) or write(self, start, **tensors)
    blocks = embed_on_disk(model, many, 'train', Config(device='cpu', precision='fp32'), False,
                           Path(folder)/'z', {}, 256)
    Path(folder, f'wrote-{team().rank}').write_text(json.dumps([wrote, blocks.digest()]))
    Blocks.write = write

DO = dict(tune=tune, watched=watched, embedded=embedded)
def in_two(what, *args):
    "A function of this file, in two processes."
    words = [*TORCHRUN, __file__, what, json.dumps(args)]
    done = subprocess.run(words, env=ENV, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]

# --- the same on one and on two

def far(a, b):
    "The largest difference of two state dicts."
    assert a.keys() == b.keys()
    return max((v.float() - b[k].float()).abs().max().item() for k, v in a.items())

def apart(a, b):
    "The distance of two state dicts."
    return sum((v.float() - b[k].float()).pow(2).sum() for k, v in a.items()).sqrt().item()

@pytest.fixture(scope='module')
def tuned(tiny, pictures, tmp_path_factory):
    "Folders of what one process and two made of the same pictures."
    one, two = tmp_path_factory.mktemp('one'), tmp_path_factory.mktemp('two')
    for start, folder in ((in_two, two), (lambda _, *args: tune(*args), one)):
        start('tune', f'local-dir:{tiny}', pictures, ROWS, str(folder))
    return one, two

@pytest.mark.parametrize('row', ROWS)
def test_two_processes_tune_as_one(row, tuned):
    (one, about1), (two, about2) = (read_tensors(o/f'{row}.safetensors') for o in tuned)
    assert (about1['processes'], about2['processes']) == ('1', '2')
    lines = [json.loads(o['lines']) for o in (about1, about2)]
    lines = [[o for o in each if o.pop('event') == 'step'] for each in lines]
    assert len(lines[0]) == len(lines[1]) >= 20
    for a, b in zip(*lines): assert a == pytest.approx(b, rel=1e-3, abs=1e-5)
    before, _ = read_tensors(tuned[0]/'before.safetensors')
    assert far(one, two) < 1e-5
    assert apart(one, two) < .01*apart(one, before)

def test_one_of_two_processes_writes(tiny, pictures, tmp_path):
    place = str(tmp_path/'run')
    mine = dict(SMALL, model=f'local-dir:{tiny}', dataset=pictures, out_dir=place, keep_epochs=True,
                save_every=0.)
    in_two('watched', mine, str(tmp_path))
    first, second = ((tmp_path/f'changed-{i}').read_text().split() for i in range(2))
    names = {Path(o).name for o in first}
    assert second == [] and names > {'config.json', 'metrics.jsonl', 'tune.safetensors', 'model.safetensors',
                                     'sae.safetensors', 'epoch-2.safetensors', 'predictions.parquet'}

def test_two_processes_embed_their_shares_into_the_blocks_of_one(tiny, pictures, tmp_path):
    one, two = tmp_path/'one', tmp_path/'two'
    for o in (one, two): o.mkdir()
    embedded(f'local-dir:{tiny}', pictures, str(one))
    in_two('embedded', f'local-dir:{tiny}', pictures, str(two))
    whole, digest = json.loads((one/'wrote-0').read_text())
    shares = [json.loads((two/f'wrote-{i}').read_text()) for i in range(2)]
    assert [o for o, _ in shares] == [whole[:1], whole[1:]] == [[0], [256]]
    assert {o for _, o in shares} == {digest}

# --- killed, and gone on with by another number

def steps_of(folder):
    path = Path(folder)/'metrics.jsonl'
    return path.read_text().count('"step", ') if path.exists() else 0

def launch(settings, words=(), steps=None):
    "The command in a process or several, to its end, or killed with all it started after so many steps."
    options = [o for k, v in settings.items() for o in (f'--{k}', str(v))]
    command = [*(words or [sys.executable]), '-m', 'sae_ft.launch', *options]
    p = psutil.Popen(command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if steps is None: return p.communicate(timeout=600)[1] if p.wait(600) else ''
    while steps_of(settings['out_dir']) < steps and p.poll() is None: time.sleep(.02)
    assert p.poll() is None, p.stderr.read()[-3000:]
    for o in [*p.children(recursive=True), p]: o.kill()
    p.wait()

def test_sigterm_keeps_what_two_did(tiny, pictures, tmp_path):
    mine = dict(SMALL, model=f'local-dir:{tiny}', dataset=pictures, out_dir=str(tmp_path/'run'), epochs=500,
                save_every=3600.)
    words = [*TORCHRUN, '-m', 'sae_ft.launch', *(o for k, v in mine.items() for o in (f'--{k}', str(v)))]
    p = subprocess.Popen(words, env=ENV, stderr=subprocess.PIPE, text=True)
    while steps_of(mine['out_dir']) < 7: assert p.poll() is None and time.sleep(.02) is None
    p.terminate()
    said = p.communicate(timeout=120)[1]
    step = int(re.search(r'stopped by SIGTERM after step (\d+) of \d+; what was done is kept in', said)[1])
    assert said.count('stopped by SIGTERM') == 1 and p.returncode
    _, place = Checkpoint(tmp_path/'run'/'checkpoint'/'tune.safetensors').load()
    assert len([o for o in place['lines'] if o['event'] == 'step']) == step >= 7

def test_two_begin_one_goes_on_two_end(tiny, pictures, tmp_path):
    mine = dict(SMALL, model=f'local-dir:{tiny}', dataset=pictures, keep_epochs=True, save_every=0.)
    whole = run(Config(**mine, out_dir=str(tmp_path/'whole')), progress=False)
    mine['out_dir'] = str(tmp_path/'run')
    launch(dict(mine, num_processes=2), steps=7)
    launch(mine, steps=14)
    assert launch(mine, TORCHRUN) == ''
    done = load_run(tmp_path/'run')
    assert [done.processes, *(o['hardware']['processes'] for o in done.provenance['resumed'])] == [2, 1, 2]
    assert {o.name for o in whole.folder.iterdir()} == {o.name for o in done.folder.iterdir()}
    for name in ('model', 'sae', *(o.stem for o in whole.epochs.values())):
        one, two = (read_tensors(o.folder/f'{name}.safetensors')[0] for o in (whole, done))
        assert far(one, two) < 1e-5, name
    assert len(whole.of('step')) == len(done.of('step')) >= 20
    for a, b in zip(whole.of('step'), done.of('step')):
        assert (a.pop('event'), a) == (b.pop('event'), pytest.approx(b, rel=1e-3, abs=1e-5))

if __name__ == '__main__': DO[sys.argv[1]](*json.loads(sys.argv[2]))
