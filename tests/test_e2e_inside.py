"What looks inside a tower, on open_clip's ViT-B/32 with random weights that are read from a file."
import pytest
import torch

from sae_ft.activations import Hooks, points
from sae_ft.clip import class_embeddings, load_clip, zero_shot
from sae_ft.data import Images
from sae_ft.inside_activations import on_tokens, prefix_tokens, record
from sae_ft.inside_conceptors import conceptor_of, through
from sae_ft.inside_saes import layer_table
from sae_ft.inside_steering import Neurons, mean_changes, steerability, steered, strength_curve
from sae_ft.inside_suppression import (WAYS, best_of, by_layer_and_number, compared_once, layer_of, saes_of,
                                       seen_by)
from sae_ft.inside_words import attack_judge, attacked
from sae_ft.sae_train import train_sae
from sae_ft.suites import load_suite
from tiny_clip import random_vit_b32

@pytest.fixture(scope='module')
def clip(tmp_path_factory): return load_clip('ViT-B-32', random_vit_b32(tmp_path_factory.mktemp('b32')))

def test_from_pictures_to_steerability_on_vit_b32(clip, tmp_path):
    suite = load_suite(limit=6, progress=False)
    pictures, words = Images(suite.train, clip.eval_tf), suite.classnames[:5]
    T = class_embeddings(clip, words, ['{}'])
    classifier = zero_shot(clip, suite.classnames[:5], ['{}'], keep_text=True).requires_grad_(False)
    visual, quiet = classifier.visual, dict(precision='fp32', progress=False)
    assert prefix_tokens(visual) == 1 and len(points(visual)) == 12*4
    names = ['resid_pre.0', 'resid_post.7', 'mlp_out.11', 'mlp_act.11']
    found = record(visual, pictures, names, tmp_path, batch_size=3, **quiet)
    assert [len(o) for o in found.values()] == [6*50]*4
    assert found['mlp_act.11'].sample()[0].shape == (300, 3072)

    x = torch.stack([pictures[i][0] for i in range(2)])
    with torch.no_grad():
        before = classifier(x)
        with Hooks(visual, {k: on_tokens(torch.clone) for k in points(visual)}):
            assert (classifier(x) - before).abs().max() <= 1e-5

    point = 'resid_post.7'
    sae, _ = train_sae(found[point].sample()[0], 1, 8, epochs=2, normalize=False, progress=False)
    sae = sae.requires_grad_(False)
    labelled = torch.utils.data.TensorDataset(x, torch.zeros(2, dtype=torch.long))
    table = layer_table(classifier, {point: sae}, found, labelled, prefix_tokens(visual), **quiet)
    assert table.l0_cls[point] == table.l0_edge[point] == 8 and table.fvu[point] < 1
    for dictionary in (sae, Neurons(768)):
        S = steerability(mean_changes(*steered(classifier, x, point, dictionary, [0, 1], 50.), T))
        assert S.shape == (2,) and S.isfinite().all()
    C = conceptor_of(found[point], 1.)
    curve = strength_curve(classifier, x, point, lambda b: through(C, b), (0., 1.), T, words)
    assert len(curve) == 2 and curve.change[0] == pytest.approx(1)

def test_an_attack_and_its_defence_on_vit_b32(clip, tmp_path):
    clean = load_suite(limit=4, progress=False).train.select_columns(['image', 'label'])
    words, among = clean.features['label'].names, sorted({*clean['label'][:], 0, 1})
    classifier = zero_shot(clip, words, ['{}'], keep_text=True).requires_grad_(False)
    visual, quiet, point = classifier.visual, dict(precision='fp32', progress=False), 'resid_post.7'
    hit = attacked(clean, words, among, .8)
    judge = attack_judge(classifier, clean, hit, among, **quiet)
    tokens = record(visual, seen_by(visual, clean, hit), [point], tmp_path, **quiet)
    assert len(tokens[point]) == 8*50
    sae = saes_of(tokens, expansion=1, k=8, epochs=1)[point]
    layers = {point: layer_of(sae, tokens[point], [0]*4 + [1]*4)}
    assert layers[point].codes.shape == layers[point].units.shape == (8, 768)
    tried = by_layer_and_number(judge, layers, (2,))
    once = compared_once(judge, layers, best_of(tried, ['both']), draws=1).set_index('way')
    assert list(once.index) == ['as it is', *WAYS]
    numbers = ['clean', 'attacked', 'both', 'fooled']
    assert once[numbers].stack().between(0, 1).all()
    assert once.loc['as it is', numbers].to_dict() == judge({point: on_tokens(torch.clone)})
