"Loading any open_clip model: folder, file, tag; and what goes wrong, in one sentence each. Offline, on tiny models."
import gzip
import json
import os
import pickle
import time
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from sae_ft import clip as C

RESNET = dict(embed_dim=32, vision_cfg=dict(image_size=32, layers=[1, 1, 1, 1], width=8),
              text_cfg=dict(context_length=12, vocab_size=1000, width=32, heads=2, layers=1))
VIT = RESNET | dict(vision_cfg=dict(image_size=32, layers=2, width=32, head_width=16, patch_size=16))
WORDS, TEMPLATES = ['cat', 'dog', 'boat'], ['a {}.', 'an icon of a {}.']


def weights(cfg):
    torch.manual_seed(0)
    return open_clip.model.CLIP(**json.loads(json.dumps(cfg))).state_dict()


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "A `local-dir:` folder with its own vocabulary of 1000 tokens and fp16 weights."
    folder = tmp_path_factory.mktemp('tiny')
    merges = gzip.open(open_clip.tokenizer.default_bpe()).read().decode().split('\n')[:1000 - 512 - 2 + 1]
    with gzip.open(folder/'bpe.txt.gz', 'wb') as f: f.write('\n'.join(merges).encode())
    cfg = json.loads(json.dumps(RESNET))
    cfg['text_cfg']['tokenizer_kwargs'] = {'bpe_path': 'bpe.txt.gz'}
    (folder/'open_clip_config.json').write_text(json.dumps(dict(model_cfg=cfg, preprocess_cfg={'mean': [.5]*3, 'std': [.5]*3})))
    save_file({k: v.half() if v.is_floating_point() else v for k, v in weights(RESNET).items()}, folder/'open_clip_model.safetensors')
    return folder


@pytest.fixture(scope='module')
def named(tmp_path_factory):
    "Architectures of ours in open_clip's list, and a tag `openai` whose weights are a file."
    folder = tmp_path_factory.mktemp('named')
    (folder/'tiny-test.json').write_text(json.dumps(VIT))
    (folder/'tiny-test-quickgelu.json').write_text(json.dumps(VIT | dict(quick_gelu=True)))
    (folder/'tiny-rn.json').write_text(json.dumps(RESNET))
    known = open_clip.pretrained._PRETRAINED
    open_clip.add_model_config(folder)
    save_file(weights(VIT), folder/'vit.safetensors')
    torch.save(weights(VIT), folder/'vit.pt')
    for k in ('tiny-test', 'tiny-test-quickgelu'): known[k] = {'openai': {'file': str(folder/'vit.safetensors'), 'quick_gelu': True}}
    yield folder
    for k in ('tiny-test', 'tiny-test-quickgelu'): del known[k]
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder)
    for k in ('tiny-test', 'tiny-test-quickgelu', 'tiny-rn'): del open_clip.factory._MODEL_CONFIGS[k]


@pytest.fixture
def no_hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)


def one_line(error):
    text = str(error.value)
    assert '\n' not in text and len(text) < 400, text
    return text


def test_local_dir(tiny, monkeypatch):
    monkeypatch.chdir('/')
    clip = C.load_clip(f'local-dir:{tiny}')
    assert clip.d == 32 and not clip.model.training
    assert {p.dtype for p in clip.model.parameters()} == {torch.float32}
    assert clip.tokenizer.vocab_size == 1000 and clip.tokenizer(['zebra crossing']).max() < 1000
    assert torch.allclose(clip.model.visual.conv1.weight, weights(RESNET)['visual.conv1.weight'].half().float())
    assert '32-dimensional' in repr(clip)


def test_local_dir_relative(tiny, monkeypatch):
    monkeypatch.chdir(tiny.parent)
    assert C.load_clip(f'local-dir:{tiny.name}').d == 32


def test_zero_shot_is_the_definition(tiny):
    clip = C.load_clip(f'local-dir:{tiny}')
    W = C.class_embeddings(clip, WORDS, TEMPLATES)
    for w, word in zip(W, WORDS):
        with torch.no_grad(): e = F.normalize(clip.model.encode_text(clip.tokenizer([t.format(word) for t in TEMPLATES])), dim=-1).mean(0)
        assert torch.allclose(w, e/e.norm(), atol=1e-6)
    x, scale = torch.randn(5, 3, 32, 32), clip.model.logit_scale.exp()
    with torch.no_grad():
        z = clip.model.encode_image(x)
        ours = C.zero_shot(clip, WORDS, TEMPLATES, keep_text=True)(x)
    assert torch.allclose(ours, scale*F.normalize(z, dim=-1) @ W.T, atol=1e-5)


def test_keep_text_copies_the_tower(tiny):
    clip = C.load_clip(f'local-dir:{tiny}')
    kept, moved = C.zero_shot(clip, WORDS, TEMPLATES, keep_text=True), C.zero_shot(clip, WORDS, TEMPLATES)
    assert kept.visual is not moved.visual and clip.model is None
    with pytest.raises(ValueError, match='text tower') as e: C.zero_shot(clip, WORDS, TEMPLATES)
    one_line(e)


def test_batchnorm_is_frozen_and_still_tuned(tiny):
    m = C.zero_shot(C.load_clip(f'local-dir:{tiny}'), WORDS, TEMPLATES).train()
    x, before = torch.randn(4, 3, 32, 32), {k: v.clone() for k, v in m.named_buffers()}
    m(x).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in m.named_buffers())
    assert m.training and m.visual.bn1.weight.grad is not None
    assert torch.allclose(m.encode(x)[:1], m.encode(x[:1]), atol=1e-5)


def test_head_stays_fp32_under_autocast(tiny):
    m = C.zero_shot(C.load_clip(f'local-dir:{tiny}'), WORDS, TEMPLATES)
    z = torch.randn(4, 32)
    with torch.no_grad(), C.autocast('cpu', 'bf16'): low = m.classify(z)
    assert low.dtype == torch.float32 and torch.equal(low, m.classify(z))


def test_weights_from_files(named):
    a, b = C.load_clip('tiny-test', str(named/'vit.safetensors')), C.load_clip('tiny-test', str(named/'vit.pt'))
    assert all(torch.equal(v, b.model.state_dict()[k]) for k, v in a.model.state_dict().items())
    assert torch.equal(a.model.visual.conv1.weight, weights(VIT)['visual.conv1.weight'])


def test_openai_tag_gets_quickgelu(named, no_hub):
    with pytest.warns(UserWarning, match='using tiny-test-quickgelu'): clip = C.load_clip('tiny-test', 'openai')
    assert any(isinstance(m, QuickGELU) for m in clip.model.modules())
    assert not any(isinstance(m, QuickGELU) for m in C.load_clip('tiny-test', str(named/'vit.safetensors')).model.modules())


@pytest.mark.parametrize('file', ['vit.safetensors', 'vit.pt'])
def test_weights_that_do_not_fit(named, file):
    with pytest.raises(ValueError, match=f"{file}' do not fit the model 'tiny-rn'") as e: C.load_clip('tiny-rn', str(named/file))
    one_line(e)


def test_first_mismatch_is_named(named, tmp_path):
    w = weights(VIT)
    save_file(w | {'visual.ln_pre.weight': torch.ones(7)}, tmp_path/'shape.safetensors')
    save_file({k: v for k, v in w.items() if k != 'visual.proj'}, tmp_path/'less.safetensors')
    save_file(w | {'visual.extra': torch.ones(7)}, tmp_path/'more.safetensors')
    for file, what in dict(shape=r'visual.ln_pre.weight is torch.Size\(\[7\]\)', less='visual.proj is missing', more='visual.extra').items():
        with pytest.raises(ValueError, match=what) as e: C.load_clip('tiny-test', str(tmp_path/f'{file}.safetensors'))
        one_line(e)


class Evil:
    def __reduce__(self): return os.system, ('touch evil',)


def test_nothing_is_unpickled(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': Evil()}, tmp_path/'a.pt')
    Path('b.pt').write_bytes(pickle.dumps(Evil()))
    for f in ('a.pt', 'b.pt'):
        with pytest.raises(ValueError) as e: C.load_clip('tiny-test', f)
        one_line(e)
    assert not Path('evil').exists()


def test_files_that_are_no_weights(named, tiny, tmp_path):
    (tmp_path/'text.safetensors').write_text('hello'); (tmp_path/'text.pt').write_text('hello'); (tmp_path/'zero.safetensors').touch()
    for f in ('text.safetensors', 'text.pt', 'zero.safetensors'):
        with pytest.raises(ValueError, match=f) as e: C.load_clip('tiny-test', str(tmp_path/f))
        one_line(e)
    (tmp_path/'open_clip_config.json').write_text((tiny/'open_clip_config.json').read_text())
    (tmp_path/'text.safetensors').unlink(); (tmp_path/'zero.safetensors').unlink()
    with pytest.raises(ValueError) as e: C.load_clip(f'local-dir:{tmp_path}')  # never random weights
    one_line(e)


@pytest.mark.parametrize('model,pretrained,says', [
    ('ViT-B16', None, 'did you mean'), ('ViT-B-16', None, 'needs weights'), ('ViT-B-16', '', 'needs weights'),
    ('ViT-B-16', 'opnai', 'openai'), ('ViT-B-16', 'my/weights.safetensors', 'does not exist'), ('iconclip', 'openai', 'brings its own weights'),
    ('local-dir:/nowhere', None, 'not an open_clip folder')])
def test_wrong_names_fail_at_once(model, pretrained, says):
    start = time.time()
    with pytest.raises((ValueError, FileNotFoundError), match=says) as e: C.load_clip(model, pretrained)
    one_line(e)
    assert time.time() - start < 2


@pytest.mark.parametrize('model,tag', [('ViT-B-32-quickgelu', 'openai'), ('hf-hub:someone/something', None)])
def test_a_hub_tag_without_network_fails_at_once(model, tag, no_hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    start = time.time()
    with pytest.raises(ValueError, match='cannot be fetched') as e: C.load_clip(model, tag)
    assert model in one_line(e) and time.time() - start < 5


def test_hub_goes_offline_only_when_unreachable(monkeypatch):
    class Session:
        def __init__(self, ok): self.ok = ok
        def head(self, *args, **kwargs):
            if not self.ok: raise OSError('no network')
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(C.datasets.config, 'HF_HUB_OFFLINE', False)
    for ok in (True, False):
        monkeypatch.setattr(huggingface_hub, 'get_session', lambda: Session(ok))
        with C.hub(): assert constants.HF_HUB_OFFLINE is not ok and C.datasets.config.HF_HUB_OFFLINE is not ok
        assert constants.HF_HUB_OFFLINE is False


def test_device_and_precision():
    assert C.pick_device('cpu').type == 'cpu' and C.pick_device('auto').type in ('cpu', 'cuda')
    with pytest.raises(ValueError, match="device 'tpu9'") as e: C.pick_device('tpu9')
    one_line(e)
    with pytest.raises(ValueError, match='known are auto, fp32, bf16') as e:
        with C.autocast('cpu', 'fp16'): pass
    a = torch.randn(8, 8)
    for precision, dtype in dict(fp32=torch.float32, bf16=torch.bfloat16).items():
        with C.autocast('cpu', precision): assert (a @ a).dtype == dtype


def test_embed(tiny):
    m = C.zero_shot(C.load_clip(f'local-dir:{tiny}'), WORDS, TEMPLATES)
    data = [(torch.randn(3, 32, 32), i % 3) for i in range(10)]
    z, y = C.embed(m.encode, data, batch_size=4, precision='fp32', progress=False)
    z1, _ = C.embed(m.encode, data, batch_size=10, precision='fp32', progress=False, workers=1)
    assert z.shape == (10, 32) and z.dtype == torch.float32 and not z.requires_grad and y.tolist() == [i % 3 for i in range(10)]
    assert torch.allclose(z, z1, atol=1e-5)
    with pytest.raises(ValueError, match='empty'): C.embed(m.encode, [])


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_gpu_agrees_with_cpu():
    m = C.zero_shot(C.load_clip(), WORDS, TEMPLATES)
    data = [(torch.randn(3, 64, 64), 0) for _ in range(32)]
    z, _ = C.embed(m.encode, data, precision='fp32', progress=False)
    zs = [C.embed(m.cuda().encode, data, device='cuda', precision=p, progress=False)[0] for p in ('fp32', 'bf16')]
    assert F.cosine_similarity(z, zs[0]).min() > .999 and F.cosine_similarity(z, zs[1]).min() > .98
