"Taps: what is kept of a tower while it runs, and that nothing stays behind."
import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import nn

from loops import unit
from sae_ft.activations import Taps, tap_names
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
