"SAEs on tokens, in a tiny transformer: measures against loops, and what is spliced in."
import pytest
import torch
from open_clip.transformer import VisionTransformer

from sae_ft.activations import Hooks, Taps, points
from sae_ft.clip import Classifier
from sae_ft.inside_activations import record
from sae_ft.inside_saes import (centre_and_edge, layer_table, measure_tokens, on_grid, rebuilt, recoded,
                                relu_l1,
                                spliced, with_codes)
from sae_ft.sae_kinds import SAES
from sae_ft.sae_train import fit_sae, train_sae
from tiny_towers import QUIET, Noise

POINT = 'resid_post.1'

@pytest.fixture(scope='module')
def classifier():
    torch.manual_seed(0)
    tower = VisionTransformer(16, 4, width=8, layers=2, heads=2, mlp_ratio=2, output_dim=6)
    W = torch.nn.functional.normalize(torch.randn(3, 6), dim=-1)
    return Classifier(tower, W, 10.).eval().requires_grad_(False)

@pytest.fixture(scope='module')
def recorded(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp('tokens')
    return record(classifier.visual, Noise(60, 16), list(points(classifier.visual)), folder, **QUIET)

@pytest.mark.parametrize('kind', SAES)
def test_every_kind_is_trained_on_tokens_and_measured_part_by_part(kind, recorded):
    x, _, position = recorded[POINT].sample()
    sae, _ = train_sae(x, 4, 3, epochs=3, kind=kind, normalize=False, progress=False)
    found = measure_tokens(sae.requires_grad_(False), recorded[POINT])
    s = sae.encode(x)
    fvu = (x - sae.decode(s)).pow(2).sum()/(x - x.mean(0)).pow(2).sum()
    assert found['fvu'] == pytest.approx(fvu.item(), rel=1e-3)
    l0 = (s != 0).sum(1).float()
    assert found['l0'] == pytest.approx(l0.mean().item())
    assert found['dead'] == pytest.approx((~(s != 0).any(0)).float().mean().item())
    assert list(found['l0_at']) == list(range(17))
    for p in range(17): assert found['l0_at'][p] == pytest.approx(l0[position == p].mean().item())

@pytest.mark.parametrize('normalize', [True, False])
def test_codes_put_back_change_no_answer_and_a_changed_code_moves_along_its_column(normalize, classifier):
    torch.manual_seed(1)
    sae, x = SAES['topk'](8, 2, 3, normalize).eval().requires_grad_(False), torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        before = classifier(x)
        with Hooks(classifier.visual, {POINT: with_codes(sae, lambda s: s)}):
            assert (classifier(x) - before).abs().max() <= 1e-5
        with Hooks(classifier.visual, {POINT: spliced(sae)}):
            assert (classifier(x) - before).abs().max() > 1e-3
    t = torch.randn(2, 5, 8)
    length = t.norm(dim=-1, keepdim=True) if normalize else torch.ones(2, 5, 1)
    up = recoded(sae, t, lambda s: s + 2*torch.eye(16)[3]) - t
    assert torch.allclose(up, 2*length*sae.decoder.weight[:, 3], atol=1e-5)
    assert torch.allclose(rebuilt(sae, t), length*sae(t), atol=1e-6)

def test_few_codes_at_a_time_give_the_same(monkeypatch):
    sae, x = SAES['topk'](8, 2, 3).eval().requires_grad_(False), torch.randn(3, 5, 8)
    want = rebuilt(sae, x)
    monkeypatch.setattr('sae_ft.inside_saes.AT_ONCE', 32)  # two tokens
    assert torch.allclose(rebuilt(sae, x), want, atol=1e-6)

def test_a_fixed_price_stays_and_a_higher_one_switches_features_off(recorded):
    x, l0 = recorded[POINT].sample()[0], {}
    for price in (.003, 3.):
        sae = relu_l1(8, price, expansion=64, k=8)
        fit_sae(sae, x, 20, 128, 5e-3, 0, progress=False)
        assert float(sae.price) == pytest.approx(price) and sae.n == 64*8
        l0[price] = measure_tokens(sae, recorded[POINT])['l0']
    assert l0[3.] < l0[.003]/2

def test_the_table_of_layers(classifier, recorded):
    saes = {k: train_sae(recorded[k].sample()[0], 4, 4, epochs=2, progress=False)[0]
            for k in (POINT, 'mlp_act.0')}
    found = layer_table(classifier, saes, recorded, Noise(20, 16), prefix=1, **QUIET)
    assert list(found.index) == [POINT, 'mlp_act.0'] and (found.accuracy == found.accuracy.iloc[0]).all()
    at = measure_tokens(saes[POINT], recorded[POINT])['l0_at']
    assert found.l0_cls[POINT] == at[0]
    assert found.l0_centre[POINT] == pytest.approx(sum(at[p] for p in (6, 7, 10, 11))/4)

def test_places():
    grid = on_grid({0: 99., **{1 + i: float(i) for i in range(9)}}, 1)
    assert grid.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]] and centre_and_edge(grid) == (4., 4.)
    with pytest.raises(ValueError, match='8 patches fill no square'): on_grid({i: 0. for i in range(8)}, 0)
    with pytest.raises(ValueError, match='0 patches'): on_grid({0: 0.}, 1)
