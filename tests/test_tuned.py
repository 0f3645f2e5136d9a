"Answers for new pictures of all kinds, and what is no picture."
import re, shutil

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from sae_ft.tuned import Tuned, listed_pictures
from studies import assert_harmless
from tiny_runs import one_line

@pytest.fixture(scope='module')
def tuned(done): return Tuned.load(done.folder, precision='fp32')

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

def test_names_of_classes_and_pictures_are_escaped_in_the_table_of_answers(tiny_run):
    tuned = Tuned.load(tiny_run[1])
    table = tuned.predict(f'{tiny_run[0].dataset}/test', top=3, features=2, progress=False)   # all classes
    said = [o for i in (1, 2, 3) for o in table[f'class {i}']]
    assert any('<' in o for o in said) and any('<' in o for o in table.index)
    page = re.sub('<style.*?</style>|<div>|</div>', '', table._repr_html_(), flags=re.DOTALL)
    assert_harmless(page)

def test_an_unknown_policy_is_refused(tuned, pictures):
    with pytest.raises(ValueError) as error: tuned.embed(pictures, on_bad_image='skipp', progress=False)
    assert one_line(error) == "unknown on_bad_image 'skipp': known are refuse, skip."

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
