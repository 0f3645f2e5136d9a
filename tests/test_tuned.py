"Answers for new pictures, of a run and of an export of it, and the export itself."
import json
import shutil
import subprocess
import sys

import datasets
import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sae_ft.clip import load_clip
from sae_ft.export import export, model_card, push, wilson
from sae_ft.runs import load_run
from sae_ft.tuned import Tuned, listed_pictures
from studies import EVIL
from tiny_runs import one_line

@pytest.fixture(scope='module')
def tuned(done): return Tuned.load(done.folder, precision='fp32')

@pytest.fixture(scope='module')
def exported(done, tmp_path_factory): return export(done.folder, tmp_path_factory.mktemp('export')/'mine')

def logits(tuned, z): return tuned.classifier.classify(z)

def test_answers_are_those_of_the_run(done, tuned, pictures):
    folder = tuned.predict(pictures, top=3, progress=False)
    assert len(folder) == 24 and folder.index[0] == 'cat/0.png'
    p = folder[[f'probability {i}' for i in (1, 2, 3)]].to_numpy()
    assert (np.diff(p, axis=1) <= 0).all() and (p > 0).all() and (p.sum(1) <= 1 + 1e-6).all()
    one = tuned.predict(f'{pictures}/cat/0.png', progress=False)
    assert one['class'].item() == folder['class 1'].iloc[0]
    assert np.isclose(one.probability.item(), p[0, 0], atol=1e-5)

def test_the_form_of_a_picture_makes_no_difference(tuned, pictures):
    path = f'{pictures}/dog/3.png'
    picture = Image.open(path).convert('RGB')
    ds = datasets.Dataset.from_dict(dict(image=[path]), features=datasets.Features(image=datasets.Image()))
    raw = dict(bytes=open(path, 'rb').read(), path=None)
    z = [tuned.embed(o, progress=False)[1] for o in (path, picture, np.asarray(picture), [path], ds, raw)]
    assert all(torch.equal(o, z[0]) for o in z)
    grey = np.asarray(picture.convert('L'))
    a, b = (tuned.embed(o, progress=False)[1] for o in (grey, np.stack([grey]*3, -1)))
    assert torch.equal(a, b)

def test_pictures_of_several_sizes_keep_their_order(tuned):
    rng = np.random.default_rng(0)
    sizes = (30, 40), (64, 64), (30, 40), (200, 50), (64, 64)
    odd = [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]
    together = tuned.embed(odd, progress=False)[1]
    alone = torch.cat([tuned.embed(o, progress=False)[1] for o in odd])
    in_twos = tuned.embed(odd, batch_size=2, progress=False)[1]
    assert all(torch.allclose(together, o, atol=1e-4) for o in (alone, in_twos))

WRONG = [('nowhere', 'no picture and no folder'), ([], 'no pictures were given'),
         (np.zeros((3, 3)), 'an array of float64'),
         (['a.png', 'b.png'], '2 of 2 pictures cannot be read: a.png')]

@pytest.mark.parametrize('wrong, says', WRONG, ids=lambda o: str(o)[:20])
def test_what_is_no_picture_is_one_sentence(tuned, wrong, says):
    with pytest.raises((ValueError, FileNotFoundError)) as error: tuned.predict(wrong, progress=False)
    assert says in one_line(error)

def test_a_folder_without_pictures_is_one_sentence(tuned, tmp_path):
    (tmp_path/'notes.txt').write_text('no picture')
    with pytest.raises(ValueError) as error: tuned.predict(tmp_path)
    assert 'there is no picture in' in one_line(error)

def test_broken_pictures_are_all_named_or_left_out(tuned, pictures, tmp_path):
    root = shutil.copytree(pictures, tmp_path/'copy')
    for name in ('cat/0.png', 'tree/7.png'): (root/name).write_bytes(b'broken')
    with pytest.raises(ValueError) as error: tuned.predict(root, batch_size=5, progress=False)
    assert '2 of 24' in one_line(error) and all(o in str(error.value) for o in ('cat/0.png', 'tree/7.png'))
    left = tuned.predict(root, on_bad_image='skip', progress=False)
    assert len(left) == 22 and not {'cat/0.png', 'tree/7.png'} & set(left.index)
    assert tuned.predict(root/'cat'/'0.png', on_bad_image='skip', progress=False).empty

def test_features_behind_an_answer_are_its_largest_evidence(tuned, pictures):
    z = tuned.embed(pictures, progress=False)[1]
    c = logits(tuned, z).argmax(1)
    W = tuned.classifier.head.weight - tuned.classifier.head.weight.mean(0)
    s, D = tuned.sae.encode(z), tuned.sae.decoder.weight
    for row, text in enumerate(tuned.behind(z, c, 2)):
        each = s[row]*(D.T @ W[c[row]])
        best = each.topk(2)
        want = [f'{i} {v:+.1f}' for v, i in zip(best.values.tolist(), best.indices.tolist()) if v > 0]
        assert text == ', '.join(want)
    without = Tuned(tuned.classifier, tuned.classnames)
    with pytest.raises(ValueError, match='no SAE here'): without.predict(pictures, features=1, progress=False)

def test_names_of_pictures():
    assert [k for k, _ in listed_pictures([Image.new('RGB', (2, 2)), '/a/b.png'])] == ['picture 0', 'b.png']

# --- export

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

# --- transformers

def vit(folder, quick_gelu=True):
    "An open_clip folder of a small CLIP with random weights, of OpenAI's architecture."
    cfg = dict(embed_dim=32, quick_gelu=quick_gelu,
               vision_cfg=dict(image_size=32, layers=2, width=64, head_width=32, patch_size=8),
               text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2))
    torch.manual_seed(0)
    net = open_clip.model.CLIP(**cfg)
    folder.mkdir()
    mean, std = [.5]*3, [.25]*3
    pictures = dict(mean=mean, std=std, interpolation='bicubic', resize_mode='shortest')
    (folder/'open_clip_config.json').write_text(json.dumps(dict(model_cfg=cfg, preprocess_cfg=pictures)))
    weights = {k: v.contiguous().clone() for k, v in net.state_dict().items()}
    save_file(weights, folder/'open_clip_model.safetensors')
    return folder

def test_transformers_gives_the_same_logits(pictures, tmp_path):
    transformers = pytest.importorskip('transformers')
    from sae_ft.experiment import run
    from sae_ft.settings import Config
    model = vit(tmp_path/'vit')
    cfg = Config(model=f'local-dir:{model}', dataset=pictures, epochs=1, batch_size=8, sae_epochs=2, k=2,
                 lr=1e-3, precision='fp32', device='cpu', cache=None, out_dir=str(tmp_path/'run'))
    folder = export(run(cfg, progress=False), tmp_path/'out')
    clip = load_clip(f'local-dir:{folder}')
    theirs = transformers.CLIPModel.from_pretrained(folder/'transformers').eval()
    picture, words = Image.open(f'{pictures}/cat/0.png').convert('RGB'), ['a cat', 'a photo of a dog', 'tree']
    tokens, x = clip.tokenizer(words), clip.eval_tf(picture)[None]
    with torch.no_grad():
        want = clip.model(x, tokens)
        want = want[2]*want[0] @ want[1].T
        got = theirs(pixel_values=x, input_ids=tokens).logits_per_image
    assert torch.allclose(got, want, atol=1e-4*want.abs().max().item() + 1e-4)
    processor = transformers.CLIPImageProcessor.from_pretrained(folder/'transformers')
    seen = processor(picture, return_tensors='pt')['pixel_values']
    assert seen.shape == x.shape and (seen - x).abs().max() < .1  # two libraries' resizing

def test_a_resnet_has_no_transformers_folder(exported):
    assert not (exported/'transformers').exists()
    names = load_file(exported/'open_clip_model.safetensors').keys()
    assert {'visual.attnpool.c_proj.weight', 'text_projection'} <= names
