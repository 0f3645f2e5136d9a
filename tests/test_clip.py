"Loading any open_clip model: folder, file, tag; what goes wrong, in one sentence. Offline, on tiny models."
import json
import os
import pickle
import socket
import time
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file
from tiny_clip import RESNET, TEMPLATES, VIT, WORDS, weights

from sae_ft import clip as C
from sae_ft.plumbing.devices import autocast


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
    for k in ('tiny-test', 'tiny-test-quickgelu'):
        known[k] = {'openai': {'file': str(folder/'vit.safetensors'), 'quick_gelu': True}}
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


def test_local_dir(tiny, monkeypatch):  # noqa: F811
    monkeypatch.chdir('/')
    clip = C.load_clip(f'local-dir:{tiny}')
    assert clip.d == 32 and not clip.model.training
    assert {p.dtype for p in clip.model.parameters()} == {torch.float32}
    assert clip.tokenizer.vocab_size == 1000 and clip.tokenizer(['zebra crossing']).max() < 1000
    want = weights(RESNET)['visual.conv1.weight'].half().float()
    assert torch.allclose(clip.model.visual.conv1.weight, want)
    assert '32-dimensional' in repr(clip)


def test_local_dir_relative(tiny, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tiny.parent)
    assert C.load_clip(f'local-dir:{tiny.name}').d == 32


def test_zero_shot_is_the_definition(tiny):  # noqa: F811
    clip = C.load_clip(f'local-dir:{tiny}')
    W = C.class_embeddings(clip, WORDS, TEMPLATES)
    for w, word in zip(W, WORDS):
        tokens = clip.tokenizer([t.format(word) for t in TEMPLATES])
        with torch.no_grad(): e = F.normalize(clip.model.encode_text(tokens), dim=-1).mean(0)
        assert torch.allclose(w, e/e.norm(), atol=1e-6)
    x, scale = torch.randn(5, 3, 32, 32), clip.model.logit_scale.exp()
    with torch.no_grad():
        z = clip.model.encode_image(x)
        ours = C.zero_shot(clip, WORDS, TEMPLATES, keep_text=True)(x)
    assert torch.allclose(ours, scale*F.normalize(z, dim=-1) @ W.T, atol=1e-5)


def test_keep_text_copies_the_tower(tiny):  # noqa: F811
    clip = C.load_clip(f'local-dir:{tiny}')
    kept = C.zero_shot(clip, WORDS, TEMPLATES, keep_text=True)
    moved = C.zero_shot(clip, WORDS, TEMPLATES)
    assert kept.visual is not moved.visual and clip.model is None
    with pytest.raises(ValueError, match='text tower') as e: C.zero_shot(clip, WORDS, TEMPLATES)
    one_line(e)


def test_batchnorm_is_frozen_and_still_tuned(tiny):  # noqa: F811
    m = C.zero_shot(C.load_clip(f'local-dir:{tiny}'), WORDS, TEMPLATES).train()
    x, before = torch.randn(4, 3, 32, 32), {k: v.clone() for k, v in m.named_buffers()}
    m(x).sum().backward()
    assert all(torch.equal(v, before[k]) for k, v in m.named_buffers())
    assert m.training and m.visual.bn1.weight.grad is not None
    assert torch.allclose(m.encode(x)[:1], m.encode(x[:1]), atol=1e-5)


def test_head_stays_fp32_under_autocast(tiny):  # noqa: F811
    m = C.zero_shot(C.load_clip(f'local-dir:{tiny}'), WORDS, TEMPLATES)
    z = torch.randn(4, 32)
    with torch.no_grad(), autocast('cpu', 'bf16'): low = m.classify(z)
    assert low.dtype == torch.float32 and torch.equal(low, m.classify(z))


def test_weights_from_files(named):
    a, b = (C.load_clip('tiny-test', str(named/o)) for o in ('vit.safetensors', 'vit.pt'))
    assert all(torch.equal(v, b.model.state_dict()[k]) for k, v in a.model.state_dict().items())
    assert torch.equal(a.model.visual.conv1.weight, weights(VIT)['visual.conv1.weight'])


def test_openai_tag_gets_quickgelu(named, no_hub):
    with pytest.warns(UserWarning, match='using tiny-test-quickgelu'):
        clip = C.load_clip('tiny-test', 'openai')
    plain = C.load_clip('tiny-test', str(named/'vit.safetensors'))
    assert any(isinstance(m, QuickGELU) for m in clip.model.modules())
    assert not any(isinstance(m, QuickGELU) for m in plain.model.modules())


@pytest.mark.parametrize('file', ['vit.safetensors', 'vit.pt'])
def test_weights_that_do_not_fit(named, file):
    with pytest.raises(ValueError, match=f"{file}' do not fit the model 'tiny-rn'") as e:
        C.load_clip('tiny-rn', str(named/file))
    one_line(e)


def test_first_mismatch_is_named(named, tmp_path):
    w = weights(VIT)
    save_file(w | {'visual.ln_pre.weight': torch.ones(7)}, tmp_path/'shape.safetensors')
    save_file({k: v for k, v in w.items() if k != 'visual.proj'}, tmp_path/'less.safetensors')
    save_file(w | {'visual.extra': torch.ones(7)}, tmp_path/'more.safetensors')
    said = dict(shape=r'visual.ln_pre.weight is torch.Size\(\[7\]\)', less='visual.proj is missing',
                more='visual.extra')
    for file, what in said.items():
        path = str(tmp_path/f'{file}.safetensors')
        with pytest.raises(ValueError, match=what) as e: C.load_clip('tiny-test', path)
        one_line(e)


def openai_style(w):
    "As OpenAI's own state dict: half precision where it computes, and three numbers more."
    half = {k: v.half() if v.ndim > 1 else v for k, v in w.items()}
    return half | {k: torch.tensor(77) for k in C.OPENAI_ONLY}


def test_openai_weights_from_a_file_need_quickgelu(named, tmp_path):
    file = str(tmp_path/'openai.safetensors')
    save_file(openai_style(weights(VIT)), file)
    with pytest.raises(ValueError, match="trained with QuickGELU: use model 'tiny-test-quickgelu'") as e:
        C.load_clip('tiny-test', file)
    one_line(e)
    net = C.load_clip('tiny-test-quickgelu', file).model
    assert any(isinstance(m, QuickGELU) for m in net.modules())
    want = weights(VIT)['visual.conv1.weight'].half().float()
    assert torch.equal(net.visual.conv1.weight, want)
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_a_tag_without_quickgelu_is_refused_there():
    with pytest.raises(ValueError, match="ordinary GELU: use model 'ViT-B-16'") as e:
        C.load_clip('ViT-B-16-quickgelu', 'laion2b_s34b_b88k')
    one_line(e)


@pytest.mark.parametrize('name,d', [('ViT-B-32', 512), ('ViT-B-16', 512), ('ViT-L-14', 768)])
@pytest.mark.parametrize('style', ['openai', 'laion', 'local-dir'])
def test_the_clips_of_the_paper_from_local_files(name, d, style, tmp_path):
    "The architectures of open_clip with their widths and tokens, and one block in each tower."
    name += '-quickgelu'*(style == 'openai')
    cfg = open_clip.get_model_config(name)
    for o in ('vision_cfg', 'text_cfg'): cfg[o]['layers'] = 1
    known, file = open_clip.factory._MODEL_CONFIGS, tmp_path/'open_clip_model.safetensors'
    assert cfg['embed_dim'] == d and bool(cfg.get('quick_gelu')) == (style == 'openai')
    w = weights({k: v for k, v in cfg.items() if k != 'custom_text'})
    save_file(openai_style(w) if style == 'openai' else w, file)
    (tmp_path/'open_clip_config.json').write_text(json.dumps(dict(model_cfg=cfg, preprocess_cfg={})))
    was = known[name]
    try:
        known[name] = cfg
        if style == 'local-dir': clip = C.load_clip(f'local-dir:{tmp_path}')
        else: clip = C.load_clip(name, str(file))
    finally: known[name] = was
    with torch.no_grad():
        z = C.zero_shot(clip, WORDS, TEMPLATES).encode(torch.randn(2, 3, 224, 224))
    assert clip.d == d and z.shape == (2, d) and z.isfinite().all()


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


def test_files_that_are_no_weights(named, tiny, tmp_path):  # noqa: F811
    (tmp_path/'text.safetensors').write_text('hello')
    (tmp_path/'text.pt').write_text('hello')
    (tmp_path/'zero.safetensors').touch()
    for f in ('text.safetensors', 'text.pt', 'zero.safetensors'):
        with pytest.raises(ValueError, match=f) as e: C.load_clip('tiny-test', str(tmp_path/f))
        one_line(e)
    (tmp_path/'open_clip_config.json').write_text((tiny/'open_clip_config.json').read_text())
    (tmp_path/'text.safetensors').unlink()
    (tmp_path/'zero.safetensors').unlink()
    with pytest.raises(ValueError) as e: C.load_clip(f'local-dir:{tmp_path}')  # never random weights
    one_line(e)


@pytest.mark.parametrize('model,pretrained,says', [
    ('ViT-B16', None, 'did you mean'), ('ViT-B-16', None, 'needs weights'), ('ViT-B-16', '', 'needs weights'),
    ('ViT-B-16', 'opnai', 'openai'), ('ViT-B-16', 'my/weights.safetensors', 'does not exist'),
    ('iconclip', 'openai', 'brings its own weights'),
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


def test_a_hub_that_never_answers_is_given_up_within_seconds(tmp_path, monkeypatch):
    "A network that swallows what is sent: the tag fails, and the sentence says how to do without."
    with socket.create_server(('127.0.0.1', 0)) as silent:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, 'ENDPOINT', f'http://127.0.0.1:{silent.getsockname()[1]}')
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
        monkeypatch.setattr(C.datasets.config, 'HF_HUB_OFFLINE', False)
        monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
        start = time.time()
        with pytest.raises(ValueError, match='cannot be fetched') as e:
            C.load_clip('ViT-B-16', 'laion2b_s34b_b88k')
        assert time.time() - start < 10
    assert 'set pretrained to a local .safetensors file' in one_line(e)


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
