"The training of SAEs: what it measures, that it learns and repeats, and that it goes on after a cut."
import math

import pytest
import torch

from sae_ft.plumbing.resume import Checkpoint
from sae_ft.sae import TopKSAE, fvu
from sae_ft.sae_kinds import SAES, JumpReLUSAE, ReLUSAE
from sae_ft.sae_train import LivePlot, fit_sae, last_epoch, lr_factor, measure, plot_history, train_sae
from tiny_saes import IMPOSSIBLE, data, random_sae

def equal(a, b):
    "Whether two SAEs are the same to the last bit."
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[o], b[o]) for o in a)

def test_measure_is_the_same_for_any_batch_size():
    sae, z = random_sae(), torch.randn(101, 6, dtype=torch.float64)
    a, b = measure(sae, z), measure(sae, z, batch_size=7)
    s = sae.encode(z)
    assert a == pytest.approx(b) and a['fvu'] == pytest.approx(fvu(sae.normalise(z), sae(z)).item())
    assert a['l0'] == pytest.approx((s != 0).double().sum(1).mean().item())
    assert a['dead'] == pytest.approx((s == 0).all(0).double().mean().item())

def test_lr_factor():
    assert [lr_factor(i, 9) for i in (0, 6, 7, 8)] == pytest.approx([1, 1, 2/3, 1/3])

def test_last_epoch():
    falling = [.9**i for i in range(40)]                      # a tenth is gained in every epoch
    assert last_epoch(falling, 40, None) == last_epoch(falling, 40, .05) == 40
    assert last_epoch(falling, 40, .11) == 9                  # seen after six, and three more
    flat = falling[:10] + 30*[falling[9]]
    for seen in range(12): assert last_epoch(flat[:seen], 60, .05) == 60
    assert [last_epoch(flat[:seen], 60, .05) for seen in (12, 13, 40)] == [18, 18, 18]
    assert last_epoch([*falling[:9], .9, *falling[9:]], 60, .05) == 60   # one bad epoch is none
    assert last_epoch(flat, 14, .05) == 14                    # no more than were asked for
    assert last_epoch([], 60, 1.) == 60 and last_epoch(flat, 60, 1.) == 9

def test_training_lowers_fvu_keeps_unit_columns_and_repeats():
    seen, how = [], dict(expansion=2, k=3, epochs=20, progress=False)
    sae, history = train_sae(data(), **how, on_epoch=lambda h: seen.append(len(h)))
    again, _ = train_sae(data(), **how)
    assert history[-1]['fvu'] < history[0]['fvu']/2
    assert [o['epoch'] for o in history] == seen == list(range(1, 21))
    assert set(history[0]) == {'epoch', 'fvu', 'l0', 'dead'} and not sae.training
    assert torch.allclose(sae.decoder.weight.norm(dim=0), torch.ones(sae.n), atol=1e-5)
    assert equal(sae, again)
    other, _ = train_sae(data(), **how, seed=1)
    assert not torch.equal(sae.decoder.weight, other.decoder.weight)

@pytest.mark.parametrize('kind', SAES)
def test_every_kind_learns_meets_k_and_repeats(kind):
    z = data(800, d=24)
    (sae, history), (again, _) = (train_sae(z, 2, 4, epochs=20, progress=False, kind=kind) for _ in range(2))
    assert history[-1]['fvu'] < history[0]['fvu'] and equal(sae, again)
    got = measure(sae, z)
    assert got['fvu'] < .3 and 2.5 < got['l0'] < 5 and not sae.training
    assert torch.allclose(sae.decoder.weight.norm(dim=0), torch.ones(sae.n), atol=1e-5)
    s = sae.encode(z)
    assert kind == 'topk-signed' or (s >= 0).all()

def test_training_does_not_care_about_scale():
    a, b = (train_sae(c*data(), 2, 3, epochs=5, progress=False)[1][-1]['fvu'] for c in (1, 1000))
    assert a == pytest.approx(b, rel=1e-3)

def test_training_leaves_the_random_state_alone():
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    train_sae(data(50), 1, 2, epochs=1, progress=False)
    assert torch.equal(torch.rand(3), want)

def test_plots():
    _, history = train_sae(data(50), 1, 2, epochs=2, progress=False, on_epoch=LivePlot())
    assert len(plot_history(history).axes) == 3

def test_k_may_be_the_whole_dictionary():
    for kind in SAES:
        sae, _ = train_sae(data(60, d=4), 1, 4, epochs=2, progress=False, kind=kind)
        assert sae.encode(data(5, d=4)).isfinite().all()

# --- an early end

def test_stop_ends_early_with_the_learning_rate_down():
    z, how = data(), dict(expansion=2, k=3, progress=False)
    _, whole = train_sae(z, epochs=60, **how)
    sae, history = train_sae(z, epochs=60, stop=.1, **how)
    n = len(history)
    assert n < 60 and n == last_epoch([o['fvu'] for o in history], 60, .1)
    flat = 2*n//3
    assert history[:flat] == whole[:flat] and history[flat]['fvu'] != whole[flat]['fvu']
    assert history[-1]['fvu'] < history[flat - 1]['fvu'] and not sae.training
    assert train_sae(z, epochs=60, stop=0., **how)[1][:flat] == whole[:flat]

@pytest.mark.parametrize('kind', ['topk', 'jumprelu'])
@pytest.mark.parametrize('cut', [5, 7, 8, 9])   # before the fall, within it, at its end
def test_stop_goes_on_to_the_same_bits(tmp_path, kind, cut):
    z, how = data(200), dict(expansion=2, k=3, epochs=40, stop=1., kind=kind, progress=False)
    whole, history = train_sae(z, **how)
    assert len(history) == 9
    kept = Checkpoint(tmp_path/'state', every=0.)
    class Cut(Exception): pass
    def at(lines):
        if len(lines) == cut: raise Cut
    with pytest.raises(Cut): train_sae(z, **how, checkpoint=kept, on_epoch=at)
    again, lines = train_sae(z, **how, checkpoint=kept)
    assert lines == history and equal(again, whole)
    with pytest.raises(ValueError, match='stop was 1.0 and is None'):
        train_sae(z, **{**how, 'stop': None}, checkpoint=kept)

def test_a_checkpoint_names_stop_only_where_it_is_set(tmp_path):
    for stop in None, .01:
        kept = Checkpoint(tmp_path/f'{stop}')
        train_sae(data(50), 1, 2, epochs=1, stop=stop, checkpoint=kept, progress=False)
        assert ('stop' in kept.load()[1]['what']) == (stop is not None)

@pytest.mark.parametrize('stop', [-.1, 1.5, math.nan])
def test_stop_that_cannot_be(stop):
    with pytest.raises(ValueError, match='stop is a part of FVU, from 0 to 1, or None'):
        train_sae(data(), stop=stop, progress=False)

# --- speed

def test_a_training_without_dense_codes_is_that_with_them():
    class WithDenseCodes(TopKSAE): pass
    z, histories = data(400, d=24), []
    for make in TopKSAE, WithDenseCodes:
        torch.manual_seed(0)
        histories.append(fit_sae(make(24, 4, 3), z, epochs=2, progress=False))
    for sparse, dense in zip(*histories): assert sparse == pytest.approx(dense, rel=1e-3)

# --- an SAE that one has

@pytest.mark.parametrize('kind', ['topk-signed', 'jumprelu', 'matryoshka'])
def test_an_sae_made_by_hand_is_trained_to_the_same_bits(kind):
    z = data(200)
    by_name, history = train_sae(z, 2, 3, epochs=3, seed=4, normalize=False, kind=kind, progress=False)
    torch.manual_seed(4)
    mine = SAES[kind](12, 2, 3, normalize=False).eval()
    assert fit_sae(mine, z, epochs=3, seed=4, progress=False) == history
    assert equal(mine, by_name) and not mine.training

def test_a_class_of_ones_own_goes_on_from_its_checkpoint(tmp_path):
    class Louder(ReLUSAE): price = .6

    def made():
        torch.manual_seed(0)
        return Louder(12, 2, k=3)

    z, whole, again, how = data(200), made(), made(), dict(epochs=3, progress=False)
    history = fit_sae(whole, z, **how)
    kept = Checkpoint(tmp_path/'state', every=0.)
    class Cut(Exception): pass
    def cut(history): raise Cut
    with pytest.raises(Cut): fit_sae(again, z, **how, checkpoint=kept, on_epoch=cut)
    about = kept.load()[1]
    assert about['what']['kind'] == 'Louder' and about['step'] > 0
    assert set(about['steered']) == {'price'}   # the name in files since 0.2.0
    again = made()
    assert fit_sae(again, z, **how, checkpoint=kept) == history and equal(again, whole)
    with pytest.raises(ValueError, match='is of something else'):
        fit_sae(ReLUSAE(12, 2, k=3), z, **how, checkpoint=kept)

def test_what_training_changes_beside_the_tensors():
    changed = {make.__name__: make.training_state for make in (TopKSAE, ReLUSAE, JumpReLUSAE)}
    assert changed == dict(TopKSAE=(), ReLUSAE=('price',), JumpReLUSAE=('eps',))

# --- what cannot be trained

def test_unknown_kinds_list_the_known():
    known = "'topk', 'topk-signed', 'relu', 'batchtopk', 'jumprelu', 'matryoshka'"
    with pytest.raises(ValueError, match=f"unknown kind of SAE 'topp': known are {known}"):
        train_sae(data(), kind='topp', progress=False)

@pytest.mark.parametrize('kw, words', IMPOSSIBLE)
def test_what_cannot_be(kw, words):
    with pytest.raises(ValueError, match=words): train_sae(torch.randn(20, 6), progress=False, **kw)

@pytest.mark.parametrize('z, words', [
    (torch.zeros(4), 'shape'),
    (torch.zeros(1, 4), 'shape'),
    (torch.ones(9, 4), 'all 9 embeddings are the same'),
    (torch.tensor([[1., 2.], [math.nan, 0.], [math.inf, 1.]]), '2 of 3 embeddings hold nan or infinity')])
def test_embeddings_that_cannot_be_learnt(z, words):
    with pytest.raises(ValueError, match=words): train_sae(z, k=1, progress=False)
    with pytest.raises(ValueError, match=words): fit_sae(TopKSAE(4, k=1), z, progress=False)

@pytest.mark.parametrize('N', [33, 36, 41])
def test_a_last_batch_of_one_sample_does_no_harm(N):
    "Its error has no variance of which a share could be explained."
    z = torch.randn(N, 16, generator=torch.Generator().manual_seed(0))
    sae, history = train_sae(z, 8, 2, epochs=4, batch_size=8, progress=False)
    assert all(p.isfinite().all() for p in sae.parameters())
    assert all(math.isfinite(o['fvu']) for o in history)

def test_copies_of_one_sample_in_a_batch_do_no_harm():
    z = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).repeat_interleave(40, 0)
    sae, _ = train_sae(z, 8, 2, epochs=4, progress=False)
    assert all(p.isfinite().all() for p in sae.parameters())

def test_an_error_that_is_not_finite_is_said():
    with pytest.raises(ValueError, match='not finite in epoch'):
        train_sae(torch.randn(64, 16), 4, 2, epochs=5, lr=1e30, progress=False)
