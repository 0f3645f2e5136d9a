"End to end at paper scale's layouts: check_suite, zero-shot head, SAE, two steps of SAE-FT, shift table."
import json, os

import datasets
import numpy as np
import open_clip
import paper_data
import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import one_line

from sae_ft.evaluation import table
from sae_ft.experiment import run
from sae_ft.plumbing import listing
from sae_ft.plumbing.cache import Cache
from sae_ft.runs import load_run
from sae_ft.settings import Config
from sae_ft.sources_paper import PAPER_SUITES, paper_suite
from sae_ft.sources_status import check_suite, read_paper_suite
from sae_ft.suites import load_suite

datasets.disable_progress_bars()
pytestmark = pytest.mark.filterwarnings('ignore:.*pictures of', 'ignore:.*share a name')

@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "All data sets side by side."
    root = tmp_path_factory.mktemp('data')
    for make in ('imagenet', 'iwildcam', 'fmow', 'dtd', 'pets'): getattr(paper_data, make)(root)
    return root

HOW = dict(templates='a photo of a {}.', epochs=1, batch_size=8, limit=16, sae_epochs=2, k=4, warmup=0.,
           device='cpu', precision='fp32', cache=None, log_every=1)
TRANSFER = 'transfer:dtd,pets'

def tuned(tiny, root, out, **how):
    "A run of two steps."
    cfg = Config(model=f'local-dir:{tiny}', data_root=str(root), out_dir=str(out), **HOW | how)
    return run(cfg, progress=False)

@pytest.fixture(scope='module')
def on_imagenet(tiny, root, tmp_path_factory):
    assert check_suite('imagenet', root).status.str.startswith('ready').all()
    return tuned(tiny, root, tmp_path_factory.mktemp('runs')/'imagenet', dataset='imagenet', suite=TRANSFER)

def test_imagenet_its_shifts_and_two_transfer_sets(on_imagenet):
    results = on_imagenet.results
    kinds = {o.name: (o.kind, o.metric) for o in PAPER_SUITES['imagenet'].splits if o.kind != 'train'}
    kinds |= dict(dtd=('transfer', 'accuracy'), pets=('transfer', 'mean per-class accuracy'))
    assert {k: (o['kind'], o['metric']) for k, o in results['after'].items()} == kinds
    shown = table(results['before'], results['after'])
    assert set(kinds) < set(shown.index) and (shown.loc[list(kinds), 'pictures'] == 16).all()
    steps = [o for o in on_imagenet.metrics if o['event'] == 'step']
    assert len(steps) == 2 and all(o['loss'] > 0 for o in steps) and on_imagenet.of('sae')

def test_no_answer_is_outside_of_the_classes_of_a_split(on_imagenet, root):
    source, _ = read_paper_suite('imagenet', root)
    p = on_imagenet.predictions
    for name, size in {'imagenet-r': 200, 'imagenet-a': 200, 'objectnet': 113}.items():
        allowed = set(source.meta['splits'][name]['counts_as'].values())
        rows = p[p.split == name]
        assert len(allowed) == size
        assert set(rows.zero_shot) | set(rows.tuned) | set(rows.label) <= allowed

def test_a_parquet_copy_gives_the_same_numbers(on_imagenet, tiny, root, tmp_path):
    _, data = read_paper_suite('imagenet', root)
    _, more = read_paper_suite(TRANSFER, root)
    hub = 'imagenet-1k/data/{}-00000-of-00001'
    places = dict(train=hub.format('train'), imagenet=hub.format('validation'))
    for k, ds in (data | more).items():
        paper_data.parquet(ds, tmp_path/f"{places.get(k, f'{k}/test')}.parquet")
    (tmp_path/'objectnet').rename(tmp_path/'objectnet-1.0')
    (tmp_path/'objectnet-1.0'/'mappings').symlink_to(root/'objectnet-1.0'/'mappings')
    copy = tuned(tiny, tmp_path, tmp_path/'run', dataset='imagenet', suite=TRANSFER)
    for k in ('before', 'after'): assert copy.results[k] == on_imagenet.results[k]
    assert copy.predictions.equals(on_imagenet.predictions)

def test_the_second_start_reads_no_folder_of_class_folders(root, tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    for folder, _, _ in os.walk(root): os.utime(folder, (10**9, 10**9))  # what is new is not trusted
    def start():
        suite = load_suite('imagenet', data_root=str(root), limit=16, progress=False, cache=cache)
        return suite.fingerprint, {k: len(o.data) for k, o in suite.splits.items()}
    first = start()
    monkeypatch.setattr(listing, '_read_folder', lambda *a: pytest.fail('a folder was read again'))
    assert start() == first

@pytest.fixture(scope='module')
def on_wilds(tiny, root, tmp_path_factory):
    "A run on each of the two."
    runs = tmp_path_factory.mktemp('runs')
    return {o: tuned(tiny, root, runs/o, dataset=o, limit=40) for o in ('iwildcam', 'fmow')}

def test_iwildcam(on_wilds):
    results = on_wilds['iwildcam'].results['after']
    assert {k: (o['kind'], o['metric'], o['n']) for k, o in results.items()} == dict(
        id=('id', 'macro-F1 (WILDS)', 40), ood=('far', 'macro-F1 (WILDS)', 40))

def test_fmow(on_wilds, root):
    done = on_wilds['fmow']
    results, p = done.results['after'], done.predictions
    judged, worst = p[p.split == 'ood'], results['worst-region']
    region = load_suite('fmow', data_root=root, limit=40, progress=False).splits['ood'].data['region'][:]
    right = (judged.tuned == judged.label).groupby(np.array(region))
    assert results['ood']['n'] == 40 and worst['n'] == right.count()[worst['region']] < 40
    assert worst['value'] == pytest.approx(right.mean().drop('Other').min())
    assert judged.region.tolist() == region
    assert judged.tuned.tolist() == p[p.split == 'worst-region'].tuned.tolist()

@pytest.mark.parametrize('name', ['iwildcam', 'fmow'])
def test_a_parquet_copy_of_wilds_gives_the_same_numbers(name, on_wilds, tiny, root, tmp_path):
    _, data = read_paper_suite(name, root)
    for k, split in dict(train='train', val='id_val', id='id_test', ood='test').items():
        paper_data.parquet(data[k], tmp_path/name/f'{split}-00000-of-00001.parquet')
    copy = tuned(tiny, tmp_path, tmp_path/'run', dataset=name, limit=40)
    for k in ('before', 'after'): assert copy.results[k] == on_wilds[name].results[k]
    assert copy.predictions.equals(on_wilds[name].predictions)

# --- pictures that cannot be read

@pytest.fixture
def broken(root, tmp_path):
    "iWildCam, with a truncated picture in each split."
    paper_data.iwildcam(tmp_path)
    for o in ('train-3-0', 'id_val-5-1', 'test-7-0', 'id_test-9-1'):
        file = tmp_path/'iwildcam_v2.0'/'train'/f'{o}.jpg'
        file.write_bytes(file.read_bytes()[:-400])
    return tmp_path

def test_a_truncated_jpeg_is_refused_by_name(tiny, broken):
    with pytest.raises(ValueError, match=r'train/id_test-9-1.jpg \(truncated\)') as e:
        tuned(tiny, broken, broken/'run', dataset='iwildcam', limit=None)
    assert 'cannot be read' in one_line(e)

def test_or_skipped_and_counted(tiny, broken):
    with pytest.warns(UserWarning) as said:
        done = tuned(tiny, broken, broken/'run', dataset='iwildcam', limit=None, on_bad_image='skip',
                     batch_size=182)
    counted = {o for o in map(lambda o: str(o.message), said) if 'left out' in o}
    for k in ('train', 'val', 'id', 'ood'): assert any(f"1 of 364 pictures of '{k}'" in o for o in counted), k
    assert {k: o['n'] for k, o in done.results['after'].items()} == dict(id=363, ood=363)
    assert len(done.predictions) == 2*363 and (done.predictions.label >= 0).all()
    assert load_run(broken/'run').results == done.results

# --- a CLIP of the paper's size

B16 = dict(embed_dim=512, vision_cfg=dict(image_size=224, layers=12, width=768, patch_size=16),
           text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=1, layers=1))

@pytest.fixture(scope='module')
def b16(tmp_path_factory):
    "The image tower is that of ViT-B/16 at 224 pixels; the text tower, which 1,000 names pass, is small."
    folder = tmp_path_factory.mktemp('b16')
    torch.manual_seed(0)
    net = open_clip.model.CLIP(**json.loads(json.dumps(B16)))
    cfg = dict(model_cfg=B16, preprocess_cfg=dict(mean=[.5]*3, std=[.5]*3))
    (folder/'open_clip_config.json').write_text(json.dumps(cfg))
    save_file(net.state_dict(), folder/'open_clip_model.safetensors')
    return folder

@pytest.mark.parametrize('name, suite, limit', [
    ('imagenet', TRANSFER, 2), ('iwildcam', None, 2), ('fmow', None, 6)])  # six have a region or two
def test_a_vit_b16_with_its_weights_in_a_local_file(name, suite, limit, b16, root, tmp_path):
    for o in filter(None, (name, suite)): assert check_suite(o, root).status.str.startswith('ready').all()
    done = tuned(b16, root, tmp_path/'run', dataset=name, suite=suite, limit=limit, batch_size=limit//2,
                 precision='auto')
    assert len([o for o in done.metrics if o['event'] == 'step']) == 2 and done.of('sae')
    assert done.provenance['sizes']['d'] == 512
    judged = [o.name for s in filter(None, (name, suite)) for o in paper_suite(s).splits
              if o.kind not in ('train', 'val')]
    shown = table(done.results['before'], done.results['after'])
    assert set(judged) < set(shown.index) and shown.loc[judged, 'tuned %'].between(0, 100).all()
