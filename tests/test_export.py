"A run as a folder for other programs: the same model, a card that runs nothing, and damage that is said."
import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from sae_ft.clip import load_clip
from sae_ft.export import export, model_card, push, wilson
from sae_ft.plumbing.files import write_tensors
from sae_ft.runs import load_run
from sae_ft.tuned import Tuned
from studies import EVIL
from tiny_runs import one_line

@pytest.fixture(scope='module')
def tuned(done): return Tuned.load(done.folder, precision='fp32')

@pytest.fixture(scope='module')
def exported(done, tmp_path_factory): return export(done.folder, tmp_path_factory.mktemp('export')/'mine')

def logits(tuned, z): return tuned.classifier.classify(z)

def test_an_export_is_the_same_model(done, tuned, exported, pictures):
    again = Tuned.load(exported, precision='fp32')
    z, z1 = (o.embed(pictures, progress=False)[1] for o in (tuned, again))
    assert torch.equal(z, z1) and torch.equal(logits(tuned, z), logits(again, z1))
    assert again.classnames == tuned.classnames and again.sae.n == tuned.sae.n
    before, after = load_clip().model.state_dict(), load_clip(f'local-dir:{exported}').model.state_dict()
    assert before.keys() == after.keys()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed and all(k.startswith('visual.') for k in changed)

PLAIN = """
import json, sys
sys.modules['sae_ft'] = None
import open_clip, torch
from PIL import Image
from safetensors.torch import load_file
folder, *pictures = sys.argv[1:]
model, _, preprocess = open_clip.create_model_and_transforms(f'local-dir:{folder}')
head = load_file(f'{folder}/head.safetensors')
with torch.no_grad():
    z = model.eval().encode_image(torch.stack([preprocess(Image.open(o)) for o in pictures]), normalize=True)
print(json.dumps((z @ head['weight'].T + head['bias']).tolist()))
"""

def test_plain_open_clip_gives_the_same_logits(tuned, exported, pictures):
    files = [f'{pictures}/{o}' for o in ('cat/1.png', 'dog/2.png', 'tree/3.png')]
    words = [sys.executable, '-c', PLAIN, str(exported), *files]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    want = logits(tuned, tuned.embed(files, progress=False)[1])
    got = torch.tensor(json.loads(done.stdout.splitlines()[-1]))
    assert torch.allclose(got, want, atol=1e-4*want.abs().max().item())

def test_a_folder_that_is_not_empty_is_left_alone(done, exported, tmp_path):
    (tmp_path/'thesis.tex').write_text('years')
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match='is not empty'): export(done, tmp_path, overwrite=overwrite)
    assert (tmp_path/'thesis.tex').read_text() == 'years'
    with pytest.raises(FileExistsError): export(done, exported)

class Killed(BaseException): pass

def test_a_kill_leaves_no_half_export_and_the_one_before(done, tmp_path, monkeypatch):
    to, writes = tmp_path/'mine', []
    def cut(n):
        def write(path, tensors, was=write_tensors, **notes):
            writes.append(path.name)
            if len(writes) == n: raise Killed
            was(path, tensors, **notes)
        writes.clear()
        monkeypatch.setattr('sae_ft.export.write_tensors', write)
    cut(2)
    with pytest.raises(Killed): export(done, to)
    assert writes == ['open_clip_model.safetensors', 'head.safetensors'] and not to.exists()
    cut(0)
    export(done, to)
    def contents(): return {o.relative_to(to): o.read_bytes() for o in to.rglob('*') if o.is_file()}
    whole = contents()
    cut(1)
    with pytest.raises(Killed): export(done, to, overwrite=True)
    assert contents() == whole
    cut(0)
    export(done, to, overwrite=True)
    assert contents() == whole and [o.name for o in tmp_path.iterdir()] == ['mine']

@pytest.mark.parametrize('name, n', [('rename', 1), ('rename', 2), ('rmtree', 1), ('rmtree', 2)])
def test_a_kill_while_the_older_export_gives_way(done, exported, tmp_path, monkeypatch, name, n):
    to = shutil.copytree(exported, tmp_path/'mine')
    def contents(): return {o.relative_to(to): o.read_bytes() for o in to.rglob('*') if o.is_file()}
    whole, calls = contents(), []
    owner = dict(rename=type(to), rmtree=shutil)[name]
    moved = dict(rename=('mine', '.mine.part'), rmtree=('mine', '.mine.old'))
    was = getattr(owner, name)
    def cut(folder, *args, **how):
        calls.append(folder.name in moved[name])
        if sum(calls) < n or not calls[-1]: return was(folder, *args, **how)
        if name == 'rmtree':  # half of it is gone
            for o in folder.rglob('*.json'): o.unlink()
        raise Killed
    with monkeypatch.context() as m:
        m.setattr(owner, name, cut)
        with pytest.raises(Killed): export(done, to, overwrite=True)
    assert not to.exists() or contents() == whole
    export(done, to, overwrite=True)
    assert contents() == whole and [o.name for o in tmp_path.iterdir()] == ['mine']

def test_the_card_says_what_the_record_says_and_runs_nothing(tiny_run, tmp_path):
    run = load_run(tiny_run[1])
    card = model_card(run, 'a <b>bold</b> | name')
    assert not any(o in card for o in (*EVIL, '<script', '<b>', '<i>'))
    header = card.split('---')[1]
    assert 'license: other' in header and 'library_name: open_clip' in header
    for split, o in run.results['after'].items():
        low, high = wilson(o['value'], o['n'])
        assert f"{100*o['value']:.1f} ({100*low:.1f} to {100*high:.1f})" in card and f"| {o['n']:,} |" in card
    assert 'license: mit' in model_card(run, 'x', 'mit')
    folder = export(run, tmp_path/'out')
    assert Tuned.load(folder).classnames == run.provenance['classnames']

@pytest.mark.parametrize('p, n', [(0, 1), (1, 1), (.5, 10), (.03, 7000)])
def test_wilson_holds_the_share_and_stays_within_0_and_1(p, n):
    low, high = wilson(p, n)
    assert -1e-12 <= low <= p <= high <= 1 + 1e-12 and (n > 100) == (high - low < .02)

DAMAGES = [
    (lambda o: (o/'head.safetensors').unlink(), FileNotFoundError, 'a CLIP without a head'),
    (lambda o: (o/'head.safetensors').write_bytes(b'x'*99), ValueError, 'head.safetensors'),
    (lambda o: (o/'classes.json').write_text('{"classnames": ["a"]}'), ValueError, 'does not fit together'),
    (lambda o: (o/'open_clip_model.safetensors').write_bytes(b'x'), ValueError, 'the weights')]

@pytest.mark.parametrize('damage, kind, says', DAMAGES, ids=range(len(DAMAGES)))
def test_a_damaged_export_is_one_sentence(exported, tmp_path, damage, kind, says):
    folder = shutil.copytree(exported, tmp_path/'copy')
    damage(folder)
    with pytest.raises(kind) as error: Tuned.load(folder)
    assert says in one_line(error)

def test_pushing_is_a_rehearsal_until_one_says_so(exported, monkeypatch, capsys):
    calls = []
    class Hub:
        def create_repo(self, *args, **kwargs): calls.append(('create', args, kwargs))
        def upload_folder(self, **kwargs): calls.append(('upload', kwargs))
    monkeypatch.setattr('sae_ft.export.HfApi', Hub)
    table = push(exported, 'me/mine')
    assert not calls and 'would go' in capsys.readouterr().out
    files = [o.relative_to(exported).as_posix() for o in exported.rglob('*') if o.is_file()]
    assert sorted(table.index) == sorted(files)
    push(exported, 'me/mine', private=False, dry_run=False)
    assert [o[0] for o in calls] == ['create', 'upload'] and calls[0][2]['private'] is False
    with pytest.raises(ValueError, match='is no export'): push(exported.parent, 'me/mine')

def test_a_resnet_has_no_transformers_folder(exported):
    assert not (exported/'transformers').exists()
    names = load_file(exported/'open_clip_model.safetensors').keys()
    assert {'visual.attnpool.c_proj.weight', 'text_projection'} <= names
