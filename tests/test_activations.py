"Hooks and taps: what is kept or changed of a tower while it runs, and that nothing stays behind."
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from loops import unit
from sae_ft.activations import Hooks, Taps, points, tap_names
from sae_ft.losses import LDIFS
from sae_ft.losses_sae import official

def test_taps_of_a_transformer_hold_tokens_and_the_embedding():
    torch.manual_seed(0)
    shape = dict(width=8, layers=4, heads=2, mlp_ratio=2, output_dim=6)
    tower, tower0 = (VisionTransformer(16, 8, **shape) for _ in range(2))
    taps0, taps, x = Taps(tower0), Taps(tower), torch.randn(3, 3, 16, 16)
    with taps, taps0: z, z0 = tower(x), tower0(x).detach()
    blocks = {f'transformer.resblocks.{i}': (3, 5, 8) for i in range(4)}
    assert {k: tuple(h.shape) for k, h in taps.last.items()} == {'ln_pre': (3, 5, 8), **blocks, '': (3, 6)}
    LDIFS(taps, taps0)(z, z0).backward()
    assert all(p.grad is None for p in tower0.parameters()) and tower.conv1.weight.grad.abs().sum() > 0
    inner = [{k: h for k, h in o.last.items() if k} for o in (taps, taps0)]
    pair = Taps(tower, tap_names(tower)), Taps(tower0, tap_names(tower0))
    with official('ldifs', pair).attached(): tower(x), tower0(x)
    want = 0.
    for k in inner[0]:
        for r, r0 in zip(*(o[k].flatten(0, 1).tolist() for o in inner)):
            want += sum((p - q)**2 for p, q in zip(unit(r, True), unit(r0, True)))/(5*3*5*8)
    assert official('ldifs', pair)(z, z0).item() == pytest.approx(want, abs=1e-6)  # without the embedding

def test_taps_know_resnets_and_transformers():
    class Tower(nn.Module): pass
    vit = Tower()
    vit.transformer = Tower()
    vit.transformer.resblocks, vit.ln_pre = [0]*12, 0
    assert tap_names(vit) == ['ln_pre', *(f'transformer.resblocks.{i}' for i in (2, 5, 8, 11))]
    with pytest.raises(ValueError, match='Tower has no blocks'): tap_names(Tower())

def test_hooks_are_there_within_the_context_alone():
    tower = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    taps = Taps(tower, ['0', '', '0'])
    def hooks(): return len(tower._forward_hooks) + len(tower[0]._forward_hooks)
    assert hooks() == 0
    with pytest.raises(RuntimeError):
        with taps:
            assert hooks() == 2
            tower(torch.zeros(1, 2))
            tower(torch.zeros(1, 5))
    assert hooks() == 0 and set(taps.last) == {'0', ''}

def vit(): return VisionTransformer(16, 8, width=8, layers=3, heads=2, mlp_ratio=2, output_dim=6,
                                    ls_init_value=.5)
def timm_vit(): return TimmModel('test_vit', 6, image_size=16)
def resnet(): return ModifiedResNet([1, 2, 1, 1], output_dim=6, heads=2, image_size=32, width=4)
TOWERS = {'vit': (vit, 16, 3, 4), 'timm': (timm_vit, 16, None, 4), 'resnet': (resnet, 32, 5, 2)}

def hooks_of(tower): return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tower.modules())

@pytest.fixture(params=TOWERS)
def made(request):
    "A tower, pictures, the number of its blocks, and how many points a block has."
    make, size, blocks, each = TOWERS[request.param]
    torch.manual_seed(0)
    tower = make().eval()
    return tower, torch.randn(2, 3, size, size), blocks or len(tower.trunk.blocks), each

def test_every_block_has_its_points_and_they_lie_where_they_say(made):
    tower, x, blocks, each = made
    found = list(points(tower))
    assert len(found) == blocks*each and found[0] == 'resid_pre.0'
    with torch.no_grad(), Taps(tower, found) as taps: tower(x)
    for i in range(1, blocks):
        assert torch.equal(taps.last[f'resid_pre.{i}'], taps.last[f'resid_post.{i - 1}'])
    if each == 2: return
    for i in range(blocks):  # without what the MLP adds, the block ends before it
        with torch.no_grad(), Hooks(tower, {f'mlp_out.{i}': torch.zeros_like}), \
                Taps(tower, [f'resid_post.{i}']) as other: tower(x)
        gap = taps.last[f'resid_post.{i}'] - other.last[f'resid_post.{i}']
        assert torch.allclose(gap, taps.last[f'mlp_out.{i}'], atol=1e-6)
        assert taps.last[f'mlp_act.{i}'].shape[:2] == x.shape[:1] + gap.shape[1:2]

def test_what_is_replaced_by_itself_changes_no_output(made):
    tower, x, *_ = made
    with torch.no_grad():
        before = tower(x)
        for name in points(tower):
            with Hooks(tower, {name: torch.clone}): assert (tower(x) - before).abs().max() <= 1e-5
            with Hooks(tower, {name: lambda h: h + torch.linspace(-1, 1, h.numel()).view_as(h)}):
                assert (tower(x) - before).abs().max() > 1e-5, name

def test_no_hook_is_left_after_an_error_inside(made):
    tower, x, *_ = made
    def fails(h): raise ZeroDivisionError
    for name in points(tower):
        with pytest.raises(ZeroDivisionError):
            with Hooks(tower, {name: fails}): tower(x)
        with pytest.raises(ValueError, match='cannot be replaced'):
            with Hooks(tower, {name: lambda h: h[:1]}): tower(x)
        with pytest.raises(ValueError, match='in place'):
            with Taps(tower, [name]) as taps, taps: tower(x)
    assert hooks_of(tower) == 0

def test_a_point_that_does_not_exist_is_one_line_with_the_nearest_names(made):
    with pytest.raises(ValueError) as error: Taps(made[0], ['resid_pst.0'])
    assert "no point 'resid_pst.0': did you mean" in str(error.value) and 'resid_post.0' in str(error.value)
    assert '\n' not in str(error.value)
