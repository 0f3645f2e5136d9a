"The embedded vision transformer: IconCLIP's text tower, zero-shot that is near it, and a whole run."
import pytest
import torch

from sae_ft.activations import points
from sae_ft.clip import class_embeddings, load_clip, zero_shot
from sae_ft.embeddings import embed
from sae_ft.evaluation import answer, evaluate
from sae_ft.experiment import run
from sae_ft.export import export
from sae_ft.features import study_features
from sae_ft.inside_activations import prefix_tokens
from sae_ft.inside_suppression import seen_by
from sae_ft.inside_words import FONTS, bare_words
from sae_ft.settings import Config
from sae_ft.suites import load_suite

@pytest.fixture(scope='module')
def clips(): return load_clip(), load_clip('iconclip-vit')

def test_the_text_tower_is_iconclips_and_the_image_tower_has_a_cls(clips):
    iconclip, vit = clips
    texts = [class_embeddings(o, ['cat', 'gas station'], ['{}', 'emoji of {}']) for o in clips]
    assert torch.equal(*texts) and vit.d == iconclip.d
    shared = [{k: v for k, v in o.model.state_dict().items() if not k.startswith('visual.')} for o in clips]
    assert shared[0].keys() == shared[1].keys()
    assert all(torch.equal(shared[0][k], v) for k, v in shared[1].items())
    assert prefix_tokens(vit.model.visual) == 1 and 'resid_post.5' in points(vit.model.visual)

def test_it_is_near_its_teacher_and_reads():
    suite = load_suite(limit=200, progress=False)
    found = {}
    for name in ('iconclip', 'iconclip-vit'):
        classifier = zero_shot(load_clip(name), suite.classnames, suite.templates)
        results = evaluate(classifier, suite, Config(device='cpu'), progress=False)
        found[name] = {k: o['value'] for k, o in results.items()}
    assert found['iconclip-vit']['line'] > found['iconclip']['line'] - .06    # 200 pictures
    words = bare_words(suite.classnames, FONTS[2])
    z, y = embed(classifier.encode, seen_by(classifier.visual, words), progress=False)
    assert (answer(classifier, z) == y).float().mean() > .6

def test_a_whole_run_and_its_export(tmp_path):
    cfg = Config(model='iconclip-vit', limit=24, epochs=1, sae_epochs=2, out_dir=str(tmp_path/'run'))
    done = run(cfg, progress=False)
    assert done.config.lr == Config().lr and done.results['after']['line']['n'] == 24
    assert 0 < done.of('drift')[-1]['splits']['line']['cka'] <= 1
    assert len(study_features(done, ['line'], progress=False).suite.splits) > 0
    folder = export(done.folder, tmp_path/'mine')
    again, tuned = load_clip(f'local-dir:{folder}').model.visual, done.classifier.visual
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad(): torch.testing.assert_close(again.eval()(x), tuned.eval()(x), atol=1e-4, rtol=0)
