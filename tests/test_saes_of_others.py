"SAEs in the layouts of the official code and of SAELens, there and back."
import json, math

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_ft.sae import TopKSAE
from sae_ft.sae_kinds import SAES
from sae_ft.saes_of_others import load_official, read_saelens, write_saelens
from tiny_saes import data, random_sae, trained

# --- the official code

def test_official_checkpoints_both_ways(tmp_path):
    want = random_sae(normalize=True, relu=False)
    torch.save(want.state_dict(), tmp_path/'official.pt')
    z = 5*torch.randn(12, 6, dtype=torch.float64)
    for normalize in True, False:
        got = load_official(tmp_path/'official.pt', k=3, normalize=normalize).double()
        want.normalize = normalize
        assert torch.allclose(got(z), want(z), atol=1e-5) and not got.relu

def test_official_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError): load_official(tmp_path/'none', k=3)
    (tmp_path/'words').write_text('not tensors at all')
    with pytest.raises(ValueError, match='read safely'): load_official(tmp_path/'words', k=3)
    torch.save(dict(a=torch.zeros(1)), tmp_path/'other')
    with pytest.raises(ValueError, match="lacks the SAE's tensor 'decoder.weight'"):
        load_official(tmp_path/'other', k=3)

# --- the layout of SAELens

def saelens(folder, z):
    "Codes and reconstruction as SAELens 6 computes them from a folder, written from its layout."
    cfg, w = json.loads((folder/'cfg.json').read_text()), load_file(folder/'sae_weights.safetensors')
    rescaled = cfg['normalize_activations'] == 'constant_norm_rescale'
    c = math.sqrt(cfg['d_in'])/z.norm(dim=1, keepdim=True) if rescaled else 1.
    p, length = (c*z - w['b_dec']) @ w['W_enc'] + w['b_enc'], 1.
    if cfg.get('rescale_acts_by_decoder_norm'): length = w['W_dec'].norm(dim=1)
    if cfg['architecture'] == 'topk':
        v, i = (p*length).topk(cfg['k'])
        s = torch.zeros_like(p).scatter(1, i, v.relu())
    else: s = p.relu()*(p > w.get('threshold', 0.))
    return s, (s/length @ w['W_dec'] + w['b_dec'])/c

@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('kind', [o for o in SAES if o != 'topk-signed'])
def test_saelens_gets_the_same_codes_and_gives_the_sae_back(tmp_path, kind, normalize):
    sae, z, folder = trained(kind, normalize), data(40, seed=2), tmp_path/'new'/'folder'
    write_saelens(sae, folder)
    s, x = saelens(folder, z)
    back = read_saelens(folder)
    length = z.norm(dim=1, keepdim=True) if normalize else 1
    assert torch.allclose(s, sae.encode(z), atol=1e-5) and torch.allclose(x, sae(z)*length, atol=1e-4)
    assert type(back) is type(sae) and back.config == sae.config
    assert torch.allclose(back.encode(z), sae.encode(z), atol=1e-5)
    assert torch.allclose(back(z), sae(z), atol=1e-5)
    assert sorted(o.name for o in folder.iterdir()) == ['cfg.json', 'sae_weights.safetensors']

def foreign(folder, arch='topk', **cfg):
    "A folder as SAELens writes it: encoder bias, columns of any length, nothing of ours in the metadata."
    torch.manual_seed(0)
    tensors = dict(
        W_enc=torch.randn(6, 12), b_enc=torch.randn(12)/9, W_dec=torch.randn(12, 6), b_dec=torch.randn(6)/9)
    if arch == 'jumprelu': tensors['threshold'] = torch.rand(12)
    save_file(tensors, folder/'sae_weights.safetensors')
    usual = dict(architecture=arch, d_in=6, d_sae=12, normalize_activations='none', apply_b_dec_to_input=True,
                 metadata=dict(sae_lens_version='6.0.0'))
    (folder/'cfg.json').write_text(json.dumps(usual | cfg))
    return folder

@pytest.mark.parametrize('arch, cfg', [
    ('topk', dict(k=3, rescale_acts_by_decoder_norm=True)), ('topk', dict(k=3)),
    ('standard', {}), ('jumprelu', {})])
@pytest.mark.parametrize('how', ['none', 'constant_norm_rescale'])
def test_saes_of_saelens_are_read(tmp_path, arch, cfg, how):
    sae, z = read_saelens(foreign(tmp_path, arch, normalize_activations=how, **cfg)), torch.randn(30, 6)
    s, x = saelens(tmp_path, z)
    assert torch.allclose(sae.encode(z), s, atol=1e-4) and (s > 0).any()
    assert sae.normalize == (how != 'none')
    length = z.norm(dim=1, keepdim=True) if sae.normalize else 1
    assert torch.allclose(sae(z)*length, x, atol=1e-4)

@pytest.mark.parametrize('cfg, words', [
    (dict(arch='gated'),
     "architecture = 'gated', and an SAE here can express 'topk' or 'standard' or 'jumprelu' only"),
    (dict(arch=None), 'architecture = None'),
    (dict(normalize_activations='layer_norm'), "normalize_activations = 'layer_norm'"),
    (dict(apply_b_dec_to_input=False), 'apply_b_dec_to_input = False'),
    (dict(reshape_activations='hook_z'), "reshape_activations = 'hook_z'"),
    (dict(d_in=0), 'd_in = 0, which must be a whole number, 1 or more'),
    (dict(d_sae=True), 'd_sae = True, which must be'),
    (dict(k='3'), "k = '3', which must be"),
    (dict(d_sae=13, k=3), r"'W_enc' in .* has shape \(6, 12\), and the SAE needs \(6, 13\)")])
def test_saelens_that_cannot_be_read(tmp_path, cfg, words):
    with pytest.raises(ValueError, match=words): read_saelens(foreign(tmp_path, **cfg))

def test_saelens_folders_that_are_not(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no file'): read_saelens(tmp_path)
    (tmp_path/'cfg.json').write_text('{')
    with pytest.raises(ValueError, match='is not valid JSON'): read_saelens(tmp_path)
    foreign(tmp_path)
    (tmp_path/'sae_weights.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='there is no SAE file'): read_saelens(tmp_path)

def test_what_saelens_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match='no architecture for signed activations'):
        write_saelens(TopKSAE(6, k=2, relu=False), tmp_path/'s')
    assert not (tmp_path/'s').exists()
