"Adapters: nothing at first, everything after merging, and plain weights at the end."
from copy import deepcopy

import open_clip, pytest, torch
from torch import nn

import sae_ft.lora
from sae_ft.clip import load_clip, zero_shot
from sae_ft.lora import Weights, adapted, add_lora, merge_lora, plain_state
from sae_ft.losses import L2SP
from sae_ft.settings import Config

def vit():
    torch.manual_seed(0)
    return open_clip.transformer.VisionTransformer(
        image_size=32, patch_size=16, width=32, layers=2, heads=2, mlp_ratio=2., output_dim=16).eval()

@pytest.fixture(scope='module')
def resnet(): return zero_shot(load_clip(), ['cat'], ['{}']).visual

def learnt(visual, rank=4):
    "The tower with adapters that do something, and their parameters."
    params = add_lora(visual, rank)
    with torch.no_grad():
        for p in params: p.add_(.02*torch.randn_like(p))
    return params

def unit(visual, x): return nn.functional.normalize(visual(x), dim=-1)

def test_merged_is_not_merged_to_five_digits(resnet):
    for visual, size in (deepcopy(resnet), 64), (vit(), 32):
        x, before = torch.randn(3, 3, size, size), list(visual.state_dict())
        u = unit(visual, x)
        learnt(visual)
        with_adapters = unit(visual, x)
        merge_lora(visual)
        assert (unit(visual, x) - with_adapters).abs().max() < 1e-5 < .01*(u - with_adapters).abs().max()
        assert set(visual.state_dict()) == set(before) and not hasattr(visual, 'peft_config')

def test_the_old_weights_do_not_move_in_a_step():
    visual, x = vit(), torch.randn(3, 3, 32, 32)
    before = {k: v.clone() for k, v in visual.state_dict().items()}
    opt = torch.optim.SGD(learnt(visual), .1)
    for _ in range(2):
        opt.zero_grad()
        unit(visual, x)[:, 0].sum().backward()
        opt.step()
    old = {k.replace('base_layer.', ''): v for k, v in visual.state_dict().items() if 'lora_' not in k}
    assert old.keys() == before.keys() and all(torch.equal(v, before[k]) for k, v in old.items())

def test_no_layer_gets_an_adapter_that_nobody_calls(resnet):
    for visual in (resnet, vit()):
        modules, params = adapted(visual)
        assert not [k for k in modules if 'attnpool' in k or '.attn.' in k]
        assert modules and all(k.endswith('attn.in_proj_weight') for k in params)

def test_depthwise_convolutions_are_left_out():
    assert adapted(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1))) == (['1'], [])

def test_weight_prices_see_adapters():
    visual = vit()
    reg = L2SP(Weights(visual), list(deepcopy(visual).parameters()))
    z = torch.zeros(1, 2)
    params = learnt(visual)
    with_adapters = reg(z, z)
    with_adapters.backward()
    assert with_adapters > 0 and all(p.grad is not None for p in params)
    merge_lora(visual)
    assert reg(z, z).item() == pytest.approx(with_adapters.item(), rel=1e-4)

def test_a_plain_state_of_a_model_without_adapters_is_its_own():
    holder = nn.Module()
    holder.visual = vit()
    state = plain_state(holder)
    assert all(v.data_ptr() == holder.state_dict()[k].data_ptr() for k, v in state.items())

def test_without_peft_it_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr(sae_ft.lora, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match='needs the package peft: pip install peft'):
        Config(trainable='lora').check()
    Config().check()
