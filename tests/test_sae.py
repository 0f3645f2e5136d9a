"The Top-k SAE against plain loops in float64, its training, and its files."
import json, math

import pytest
import torch
from safetensors.torch import load_file, save_file

from sae_ft.sae import SAE, TopKSAE, aux_loss, fvu, project_gradient
from sae_ft.sae_kinds import SAES
from sae_ft.sae_kinds import BatchTopKSAE, JumpReLU, JumpReLUSAE, MatryoshkaSAE, ReLUSAE, Step, exceeded, pre_activation_loss
from sae_ft.sae_train import LivePlot, lr_factor, measure, plot_history, train_sae
from sae_ft.saes_of_others import load_official, read_saelens, write_saelens

def random_sae(d=6, seed=0, **kw):
    "A double-precision SAE whose encoder, decoder and bias have nothing to do with each other."
    torch.manual_seed(seed)
    sae = TopKSAE(d, **{**dict(expansion=2, k=3), **kw}).double()
    for p in sae.parameters(): p.data = torch.randn_like(p)
    return sae

def loop_encode(sae, z):
    "s for one z (a list), by hand."
    W, b = sae.encoder.weight.tolist(), sae.b_pre.tolist()
    length = math.sqrt(sum(v*v for v in z)) if sae.normalize else 1.
    pre = [sum(w*(v/length - c) for w, v, c in zip(row, z, b)) for row in W]
    if sae.relu: pre = [max(v, 0.) for v in pre]
    top = sorted(range(len(pre)), key=lambda i: -pre[i])[:sae.k]
    return [v if i in top else 0. for i, v in enumerate(pre)]

def loop_decode(sae, s):
    return [sum(w*v for w, v in zip(row, s)) + b for row, b in zip(sae.decoder.weight.tolist(), sae.b_pre.tolist())]

@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('relu', [True, False])
def test_encode_and_decode_are_the_formula(normalize, relu):
    sae = random_sae(normalize=normalize, relu=relu, k=10)
    z = 3*torch.randn(20, 6, dtype=torch.float64)
    s = torch.tensor([loop_encode(sae, row) for row in z.tolist()], dtype=torch.float64)
    assert torch.allclose(sae.encode(z), s, atol=1e-6, rtol=0)
    assert torch.allclose(sae(z), torch.tensor([loop_decode(sae, row) for row in s.tolist()], dtype=torch.float64), atol=1e-6, rtol=0)
    assert (s < 0).any().item() == (not relu)

def test_no_more_than_k_and_fewer_when_relu_cuts():
    sae = random_sae(expansion=4, k=24)
    s = sae.encode(torch.randn(50, 6, dtype=torch.float64))
    assert (s >= 0).all() and ((s > 0).sum(1) < 24).all()

def test_normalisation_is_part_of_encode():
    sae, z = random_sae(), torch.randn(9, 6, dtype=torch.float64)
    assert torch.allclose(sae.encode(z), sae.encode(50*z)) and torch.allclose(sae.normalise(z).norm(dim=1), torch.ones(9, dtype=torch.float64))
    raw = random_sae(normalize=False)
    assert not torch.allclose(raw.encode(z), raw.encode(50*z)) and torch.equal(raw.normalise(z), z)

def test_a_zero_embedding_gives_finite_codes_and_gradients():
    z = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    random_sae()(z).sum().backward()
    assert z.grad.isfinite().all()

@pytest.mark.parametrize('normalize', [True, False])
def test_gradcheck(normalize):
    sae, z = random_sae(normalize=normalize), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sae, z)

def test_fvu_is_the_formula_and_the_mean_scores_one():
    torch.manual_seed(0)
    x, y = torch.randn(2, 30, 5, dtype=torch.float64) + 4
    rows, guess = x.tolist(), y.tolist()
    mean = [sum(r[j] for r in rows)/30 for j in range(5)]
    err = sum((a - b)**2 for r, g in zip(rows, guess) for a, b in zip(r, g))
    assert fvu(x, y).item() == pytest.approx(err/sum((a - m)**2 for r in rows for a, m in zip(r, mean)), rel=1e-6)
    assert fvu(x, y, 'zero').item() == pytest.approx(err/sum(a*a for r in rows for a in r), rel=1e-6)
    assert fvu(x, x.mean(0).expand(30, 5)).item() == 1 and fvu(x, 0*x, 'zero').item() == 1 and fvu(x, x).item() == 0

def test_measure_is_the_same_for_any_batch_size():
    sae, z = random_sae(), torch.randn(101, 6, dtype=torch.float64)
    a, b = measure(sae, z), measure(sae, z, batch_size=7)
    s = sae.encode(z)
    assert a == pytest.approx(b) and a['fvu'] == pytest.approx(fvu(sae.normalise(z), sae(z)).item())
    assert a['l0'] == pytest.approx((s != 0).double().sum(1).mean().item()) and a['dead'] == pytest.approx((s == 0).all(0).double().mean().item())

def test_projected_gradient_is_tangent():
    sae = TopKSAE(6).double()
    sae.unit_columns()
    sae(torch.randn(8, 6, dtype=torch.float64)).pow(2).sum().backward()
    project_gradient(sae)
    assert (sae.decoder.weight*sae.decoder.weight.grad).sum(0).abs().max() < 1e-12

def test_auxk_reaches_dead_features_only():
    sae = TopKSAE(6, expansion=2, k=1)
    u = sae.normalise(torch.randn(32, 6))
    dead = torch.arange(12) < 5
    p = sae.pre(u)
    aux_loss(sae, p, u - sae.decode(sae.topk(p)), dead).backward()
    assert (sae.encoder.weight.grad[dead] != 0).any() and (sae.encoder.weight.grad[~dead] == 0).all()
    assert (sae.decoder.weight.grad[:, ~dead] == 0).all()

def test_lr_factor():
    assert [lr_factor(i, 9) for i in (0, 6, 7, 8)] == pytest.approx([1, 1, 2/3, 1/3])

def data(N=800, d=12, seed=0): return torch.randn(N, 3, generator=torch.Generator().manual_seed(seed)).abs() @ torch.randn(3, d, generator=torch.Generator().manual_seed(1))

def test_training_lowers_fvu_keeps_unit_columns_and_repeats():
    seen = []
    sae, history = train_sae(data(), expansion=2, k=3, epochs=20, progress=False, on_epoch=lambda h: seen.append(len(h)))
    again, _ = train_sae(data(), expansion=2, k=3, epochs=20, progress=False)
    assert history[-1]['fvu'] < history[0]['fvu']/2 and [o['epoch'] for o in history] == seen == list(range(1, 21))
    assert set(history[0]) == {'epoch', 'fvu', 'l0', 'dead'} and not sae.training
    assert torch.allclose(sae.decoder.weight.norm(dim=0), torch.ones(sae.n), atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(sae.parameters(), again.parameters()))
    other, _ = train_sae(data(), expansion=2, k=3, epochs=20, seed=1, progress=False)
    assert not torch.equal(sae.decoder.weight, other.decoder.weight)

def test_training_does_not_care_about_scale():
    a, b = (train_sae(c*data(), 2, 3, epochs=5, progress=False)[1][-1]['fvu'] for c in (1, 1000))
    assert a == pytest.approx(b, rel=1e-3)

def test_training_leaves_the_random_state_alone():
    torch.manual_seed(5); want = torch.rand(3)
    torch.manual_seed(5); train_sae(data(50), 1, 2, epochs=1, progress=False)
    assert torch.equal(torch.rand(3), want)

def test_plots():
    _, history = train_sae(data(50), 1, 2, epochs=2, progress=False, on_epoch=LivePlot())
    assert len(plot_history(history).axes) == 3

def test_save_and_load(tmp_path):
    sae = TopKSAE(6, expansion=1.5, k=2, normalize=False, relu=False)
    sae.b_pre.data.normal_()
    sae.save(tmp_path/'new'/'sae.safetensors')
    back = TopKSAE.load(tmp_path/'new'/'sae.safetensors')
    z = torch.randn(30, 6)
    assert back.config == sae.config == dict(d=6, expansion=1.5, k=2, normalize=False, bias=False, relu=False)
    assert torch.equal(back(z), sae(z)) and [p.name for p in (tmp_path/'new').iterdir()] == ['sae.safetensors']

@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('kind', SAES)
def test_every_kind_survives_save_and_load(tmp_path, kind, normalize):
    sae, _ = train_sae(data(200), 2, 3, epochs=3, normalize=normalize, progress=False, kind=kind)
    z = data(40, seed=2)
    sae.save(tmp_path/'s')
    back = SAE.load(tmp_path/'s')
    assert type(back) is type(sae) and back.config == sae.config and back.normalize == normalize and not back.training
    assert torch.equal(back.encode(z), sae.encode(z)) and torch.equal(back(z), sae(z)) and (sae.encode(z) != 0).any()

def test_a_file_of_another_kind_is_refused_by_name(tmp_path):
    ReLUSAE(6, k=2).save(tmp_path/'s')
    with pytest.raises(ValueError, match='holds a ReLUSAE, not a TopKSAE'): TopKSAE.load(tmp_path/'s')
    assert type(ReLUSAE.load(tmp_path/'s')) is ReLUSAE

def test_a_file_from_before_there_were_kinds(tmp_path):
    sae = TopKSAE(6, k=2)
    save_file(sae.state_dict(), tmp_path/'s', metadata=dict(format='sae_ft.TopKSAE', config='{"d": 6, "expansion": 4.0, "k": 2, "normalize": true, "relu": true}'))
    assert SAE.load(tmp_path/'s').config == sae.config

@pytest.mark.parametrize('d, n', [(3, 7), (7, 10), (512, 2048), (49, 147)])
def test_any_dictionary_size_survives(tmp_path, d, n):
    TopKSAE(d, n/d, k=2).save(tmp_path/'s')
    assert TopKSAE.load(tmp_path/'s').n == n

def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path, sae = tmp_path/'sae.safetensors', TopKSAE(6)
    sae.save(path)
    before = path.read_bytes()
    monkeypatch.setattr('sae_ft.plumbing.files.os.replace', lambda *a: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError): TopKSAE(6).save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ['sae.safetensors']

def broken(tmp_path, change):
    "An SAE file whose tensors went through `change`."
    sae = TopKSAE(6, k=2)
    tensors = {k: v.clone() for k, v in sae.state_dict().items()}
    change(tensors)
    save_file(tensors, tmp_path/'s', metadata=dict(format='sae_ft.TopKSAE', config=json.dumps(sae.config)))
    return tmp_path/'s'

@pytest.mark.parametrize('change, words', [
    (lambda t: t.pop('b_pre'), "lacks the SAE's tensor 'b_pre'"),
    (lambda t: t.update(extra=torch.zeros(1)), "holds a tensor 'extra'"),
    (lambda t: t.update({'encoder.weight': torch.zeros(5, 6)}), r"'encoder.weight' in .* has shape \(5, 6\), and the SAE needs \(24, 6\)")])
def test_load_names_the_first_misfit(tmp_path, change, words):
    with pytest.raises(ValueError, match=words) as e: TopKSAE.load(broken(tmp_path, change))
    assert str(e.value).count('\n') == 0

def test_load_refuses_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no SAE file'): TopKSAE.load(tmp_path/'none')
    (tmp_path/'words').write_text('not tensors at all')
    with pytest.raises(ValueError, match='is not a safetensors file'): TopKSAE.load(tmp_path/'words')
    TopKSAE(6).save(tmp_path/'whole')
    (tmp_path/'cut').write_bytes((tmp_path/'whole').read_bytes()[:-20])
    with pytest.raises(ValueError, match='is not a safetensors file, or a damaged one'): TopKSAE.load(tmp_path/'cut')
    save_file(dict(a=torch.zeros(1)), tmp_path/'plain')
    with pytest.raises(ValueError, match="without an SAE's configuration"): TopKSAE.load(tmp_path/'plain')

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
    with pytest.raises(ValueError, match="lacks the SAE's tensor 'decoder.weight'"): load_official(tmp_path/'other', k=3)

@pytest.mark.parametrize('kw, words', [
    (dict(k=25), 'k must lie between 1 and the size of the dictionary, 24'), (dict(k=0), 'k must lie'), (dict(k=-1), 'k must lie'),
    (dict(expansion=.5), 'expansion must be at least 1, not 0.5')])
def test_what_cannot_be(kw, words):
    with pytest.raises(ValueError, match=words): TopKSAE(6, **kw)
    with pytest.raises(ValueError, match=words): train_sae(torch.randn(20, 6), progress=False, **kw)

@pytest.mark.parametrize('z, words', [
    (torch.zeros(4), 'shape'), (torch.zeros(1, 4), 'shape'), (torch.ones(9, 4), 'all 9 embeddings are the same'),
    (torch.tensor([[1., 2.], [math.nan, 0.], [math.inf, 1.]]), '2 of 3 embeddings hold nan or infinity')])
def test_embeddings_that_cannot_be_learnt(z, words):
    with pytest.raises(ValueError, match=words): train_sae(z, k=1, progress=False)

def test_fvu_refuses():
    with pytest.raises(ValueError, match='equal shapes'): fvu(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="unknown baseline 'median'"): fvu(torch.zeros(3, 2), torch.zeros(3, 2), 'median')

# --- the other kinds

def variant(make, n=10, **kw):
    "A double-precision SAE with random parameters, and activations p (8, n) of some samples."
    torch.manual_seed(1)
    sae = make(5, n/5, k=2, **kw).double()
    for p in sae.parameters(): p.data = torch.randn_like(p)
    return sae, sae.pre(torch.randn(8, 5, dtype=torch.float64))

def test_unknown_kinds_list_the_known():
    with pytest.raises(ValueError, match="unknown kind of SAE 'topp': known are 'topk', 'topk-signed', 'relu', 'batchtopk', 'jumprelu', 'matryoshka'"):
        train_sae(data(), kind='topp', progress=False)

@pytest.mark.parametrize('make', [ReLUSAE, JumpReLUSAE, TopKSAE, BatchTopKSAE])
def test_the_encoder_bias_is_added_after_centring(make):
    sae, p = variant(make, bias=True)
    W, b, c = sae.encoder.weight.tolist(), sae.encoder.bias.tolist(), sae.b_pre.tolist()
    u = torch.randn(3, 5, dtype=torch.float64)
    want = [[sum(w*(v - m) for w, v, m in zip(row, x, c)) + bias for row, bias in zip(W, b)] for x in u.tolist()]
    assert torch.allclose(sae.pre(u), torch.tensor(want, dtype=torch.float64), atol=1e-6, rtol=0)

def test_relu_and_jumprelu_are_their_formulas():
    relu, p = variant(ReLUSAE)
    assert relu.act(p).tolist() == [[max(v, 0.) for v in row] for row in p.tolist()]
    jump, p = variant(JumpReLUSAE)
    theta = jump.threshold.tolist()
    assert jump.act(p).tolist() == [[v if v > t else 0. for v, t in zip(row, theta)] for row in p.tolist()]

def test_straight_through_gradients_are_the_formula():
    jump, p = variant(JumpReLUSAE)
    p, theta, eps, g = p.detach().requires_grad_(), jump.threshold.detach().requires_grad_(), .8, torch.randn(8, 10, dtype=torch.float64)
    near = [[abs(v - t) < eps/2 for v, t in zip(row, theta.tolist())] for row in p.tolist()]
    assert any(map(any, near))
    (JumpReLU.apply(p, theta, eps)*g).sum().backward()
    want = [sum(-t/eps*g[i, j].item() for i in range(8) if near[i][j]) for j, t in enumerate(theta.tolist())]
    assert theta.grad.tolist() == pytest.approx(want, abs=1e-6)
    assert p.grad.tolist() == [[o if v > t else 0. for v, t, o in zip(row, theta.tolist(), gs)] for row, gs in zip(p.tolist(), g.tolist())]
    theta.grad = None
    (Step.apply(p, theta, eps)*g).sum().backward()
    assert theta.grad.tolist() == pytest.approx([sum(-1/eps*g[i, j].item() for i in range(8) if near[i][j]) for j in range(10)], abs=1e-6)

@pytest.mark.parametrize('k', [1, 3, 10])
def test_exceeded(k):
    p = variant(ReLUSAE)[1]
    ranked = sorted(p.flatten().tolist(), reverse=True)
    assert exceeded(p, k).item() == ranked[min(k*8, 79)]
    assert k == 10 or (p > exceeded(p, k)).sum() == k*8

def test_batchtopk_keeps_the_largest_of_the_batch_in_training_and_asks_the_threshold_afterwards():
    sae, p = variant(BatchTopKSAE)
    cut = sorted((max(v, 0.) for row in p.tolist() for v in row), reverse=True)[15]   # k B = 16
    assert sae.train().act(p).tolist() == [[v if v >= cut else 0. for v in row] for row in p.tolist()]
    sae.threshold.fill_(.7)
    assert sae.eval().act(p).tolist() == [[v if v > .7 else 0. for v in row] for row in p.tolist()]

def test_batchtopk_threshold_is_the_mean_over_batches():
    sae, u = variant(BatchTopKSAE)[0], torch.randn(12, 5, dtype=torch.float64)
    sae.finish(u, batch_size=4)
    assert sae.threshold.item() == pytest.approx(sum(exceeded(sae.pre(x).relu(), 2).item() for x in (u[:4], u[4:8], u[8:]))/3)

def test_a_code_does_not_depend_on_its_company():
    z = data(50, seed=3)
    for kind in SAES:
        sae, _ = train_sae(data(200), 2, 3, epochs=2, progress=False, kind=kind)
        assert torch.allclose(sae.encode(z)[7:9], sae.encode(z[7:9]), atol=1e-6), kind

def test_matryoshka_loss_is_the_mean_fvu_of_the_prefixes():
    sae, _ = variant(MatryoshkaSAE, n=20)
    assert sae.prefixes == [1, 2, 5, 10]
    u = torch.randn(8, 5, dtype=torch.float64)
    p, var = sae.pre(u), u.var(0, correction=0).sum()
    s = sae.act(p)
    want = 0.
    for m in (1, 2, 5, 10, 20):
        cut = s.clone(); cut[:, m:] = 0
        want += sum((a - b)**2 for x, y in zip(u.tolist(), [loop_decode(sae, row) for row in cut.tolist()]) for a, b in zip(x, y))/8/var.item()/5
    assert sae.loss(u, p, s, u - sae.decode(s), var).item() == pytest.approx(want, rel=1e-6)

def test_relu_and_jumprelu_losses_are_their_formulas():
    for make, extra in (ReLUSAE, lambda o, s, var: .3*s.sum().item()/8/var.item()**.5), (JumpReLUSAE, lambda o, s, var: ((s != 0).sum().item()/8/2 - 1)**2):
        sae, _ = variant(make)
        u = torch.randn(8, 5, dtype=torch.float64)
        p, var = sae.pre(u), u.var(0, correction=0).sum()
        s = sae.act(p)
        e = u - sae.decode(s)
        assert sae.loss(u, p, s, e, var).item() == pytest.approx((e**2).sum().item()/8/var.item() + extra(sae, s, var), rel=1e-6)

@pytest.mark.parametrize('make', [ReLUSAE, JumpReLUSAE])
def test_dead_features_without_activation_get_a_gradient(make):
    sae, p = variant(make)
    p = (p.detach() - 100).requires_grad_()
    dead = torch.arange(10) < 4
    sae.revive(p, None, dead).backward()
    assert (p.grad[:, dead] < 0).all() and (p.grad[:, ~dead] == 0).all()
    assert pre_activation_loss(p + 1000, 0., dead) == 0

@pytest.mark.parametrize('kind', SAES)
def test_every_kind_learns_meets_k_and_repeats(kind):
    z = data(800, d=24)
    (sae, history), (again, _) = (train_sae(z, 2, 4, epochs=20, progress=False, kind=kind) for _ in range(2))
    assert history[-1]['fvu'] < history[0]['fvu'] and all(torch.equal(a, b) for a, b in zip(sae.state_dict().values(), again.state_dict().values()))
    got = measure(sae, z)
    assert got['fvu'] < .3 and 2.5 < got['l0'] < 5 and not sae.training
    assert torch.allclose(sae.decoder.weight.norm(dim=0), torch.ones(sae.n), atol=1e-5)
    s = sae.encode(z)
    assert kind == 'topk-signed' or (s >= 0).all()

@pytest.mark.parametrize('kind', SAES)
@pytest.mark.parametrize('normalize', [True, False])
def test_every_kind_is_blind_to_length_only_where_normalised(kind, normalize):
    sae, _ = train_sae(data(200), 2, 3, epochs=2, normalize=normalize, progress=False, kind=kind)
    z = data(30, seed=4)
    assert torch.allclose(sae.encode(z), sae.encode(8*z), atol=1e-5) == normalize

def test_k_may_be_the_whole_dictionary():
    for kind in SAES:
        sae, _ = train_sae(data(60, d=4), 1, 4, epochs=2, progress=False, kind=kind)
        assert sae.encode(data(5, d=4)).isfinite().all()

# --- the layout of SAELens

def saelens(folder, z):
    "Codes and reconstruction as SAELens 6 computes them from a folder, written from its layout."
    cfg, w = json.loads((folder/'cfg.json').read_text()), load_file(folder/'sae_weights.safetensors')
    c = math.sqrt(cfg['d_in'])/z.norm(dim=1, keepdim=True) if cfg['normalize_activations'] == 'constant_norm_rescale' else 1.
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
    sae, _ = train_sae(data(200), 2, 3, epochs=3, normalize=normalize, progress=False, kind=kind)
    z = data(40, seed=2)
    write_saelens(sae, tmp_path/'new'/'folder')
    s, x = saelens(tmp_path/'new'/'folder', z)
    back = read_saelens(tmp_path/'new'/'folder')
    assert torch.allclose(s, sae.encode(z), atol=1e-5) and torch.allclose(x, sae(z)*(z.norm(dim=1, keepdim=True) if normalize else 1), atol=1e-4)
    assert type(back) is type(sae) and back.config == sae.config and torch.allclose(back.encode(z), sae.encode(z), atol=1e-5) and torch.allclose(back(z), sae(z), atol=1e-5)
    assert sorted(o.name for o in (tmp_path/'new'/'folder').iterdir()) == ['cfg.json', 'sae_weights.safetensors']

def foreign(folder, arch='topk', **cfg):
    "A folder as SAELens itself writes it: encoder bias, columns of any length, nothing of ours in the metadata."
    torch.manual_seed(0)
    tensors = dict(W_enc=torch.randn(6, 12), b_enc=torch.randn(12)/9, W_dec=torch.randn(12, 6), b_dec=torch.randn(6)/9)
    if arch == 'jumprelu': tensors['threshold'] = torch.rand(12)
    save_file(tensors, folder/'sae_weights.safetensors')
    cfg = dict(architecture=arch, d_in=6, d_sae=12, normalize_activations='none', apply_b_dec_to_input=True, metadata=dict(sae_lens_version='6.0.0')) | cfg
    (folder/'cfg.json').write_text(json.dumps(cfg))
    return folder

@pytest.mark.parametrize('arch, cfg', [('topk', dict(k=3, rescale_acts_by_decoder_norm=True)), ('topk', dict(k=3)), ('standard', {}), ('jumprelu', {})])
@pytest.mark.parametrize('how', ['none', 'constant_norm_rescale'])
def test_saes_of_saelens_are_read(tmp_path, arch, cfg, how):
    sae, z = read_saelens(foreign(tmp_path, arch, normalize_activations=how, **cfg)), torch.randn(30, 6)
    s, x = saelens(tmp_path, z)
    assert torch.allclose(sae.encode(z), s, atol=1e-4) and (s > 0).any() and sae.normalize == (how != 'none')
    assert torch.allclose(sae(z)*(z.norm(dim=1, keepdim=True) if sae.normalize else 1), x, atol=1e-4)

@pytest.mark.parametrize('cfg, words', [
    (dict(arch='gated'), "architecture = 'gated', and an SAE here can express 'topk' or 'standard' or 'jumprelu' only"),
    (dict(arch=None), 'architecture = None'), (dict(normalize_activations='layer_norm'), "normalize_activations = 'layer_norm'"),
    (dict(apply_b_dec_to_input=False), 'apply_b_dec_to_input = False'), (dict(reshape_activations='hook_z'), "reshape_activations = 'hook_z'"),
    (dict(d_sae=13, k=3), r"'W_enc' in .* has shape \(6, 12\), and the SAE needs \(6, 13\)")])
def test_saelens_that_cannot_be_read(tmp_path, cfg, words):
    with pytest.raises(ValueError, match=words): read_saelens(foreign(tmp_path, **cfg))

def test_saelens_folders_that_are_not(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no file'): read_saelens(tmp_path)
    (tmp_path/'cfg.json').write_text('{')
    with pytest.raises(ValueError, match='is not valid JSON'): read_saelens(tmp_path)
    foreign(tmp_path); (tmp_path/'sae_weights.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match='there is no SAE file'): read_saelens(tmp_path)

def test_what_saelens_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match='no architecture for signed activations'): write_saelens(TopKSAE(6, k=2, relu=False), tmp_path/'s')
    assert not (tmp_path/'s').exists()

@pytest.mark.parametrize('N', [33, 36, 41])
def test_a_last_batch_of_one_sample_does_no_harm(N):
    "Its error has no variance of which a share could be explained."
    z = torch.randn(N, 16, generator=torch.Generator().manual_seed(0))
    sae, history = train_sae(z, 8, 2, epochs=4, batch_size=8, progress=False)
    assert all(p.isfinite().all() for p in sae.parameters()) and all(math.isfinite(o['fvu']) for o in history)

def test_copies_of_one_sample_in_a_batch_do_no_harm():
    z = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).repeat_interleave(40, 0)
    sae, _ = train_sae(z, 8, 2, epochs=4, progress=False)
    assert all(p.isfinite().all() for p in sae.parameters())

def test_an_error_that_is_not_finite_is_said():
    with pytest.raises(ValueError, match='not finite in epoch'): train_sae(torch.randn(64, 16), 4, 2, epochs=5, lr=1e30, progress=False)
