"The table of methods: every row is made of parts that work together."
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from sae_ft.clip import class_embeddings, load_clip, zero_shot
from sae_ft.methods import (METHODS, PRICED, Context, Contrastive, contexts, get_method, head_first,
                            random_texts, wise)
from sae_ft.sae import TopKSAE

WORDS, SENTENCES = ['cat', 'dog', 'tree', 'house'], ['{}', '{} icon', 'line icon of {}']

@pytest.fixture()
def ctx():
    clip = load_clip()
    model = zero_shot(clip, WORDS, SENTENCES, keep_text=True)
    torch.manual_seed(0)
    return Context(clip, model, WORDS, SENTENCES, TopKSAE(clip.d, 2, 4), lambda: torch.randn(40, clip.d))

def test_the_papers_methods_are_there():
    assert {'zero-shot', 'lp', 'ft', 'lp-ft', 'l2-sp', 'l2', 'l1', 'ldifs', 'pca', 'sae-ft-sparse', 'sae-ft',
            'sae-ft-add-remove', 'sae-ft-kl', 'sae-ft-wasserstein', 'flyp', 'car-ft', 'lipsum-ft',
            'wise-ft', 'drrho', 'drrho-flyp'} <= set(METHODS)

def test_the_head_first_is_the_same_method_after_one_more_stage():
    for name in PRICED:
        row, own = METHODS[f'lp-{name}'], METHODS[name]
        assert row.stages == ('head', *own.stages) and row.feature is own.feature
        assert row.objective is own.objective and row.wise == own.wise and own.doc in row.doc
    assert head_first(METHODS['ft']).stages == METHODS['lp-ft'].stages

def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError) as error: get_method('saeft')
    assert all(k in str(error.value) for k in METHODS)

@pytest.mark.parametrize('name', [k for k, o in METHODS.items() if o.regulariser])
def test_a_price_is_zero_at_first_and_reaches_the_image_tower_later(name, ctx):
    reg, x = METHODS[name].regulariser(ctx), torch.randn(6, 3, 64, 64)
    def price():
        with reg.attached(): return reg(ctx.classifier.encode(x), ctx.frozen.encode(x))
    assert price().item() == pytest.approx(0, abs=1e-4)
    tuned = list(ctx.classifier.visual.parameters())
    with torch.no_grad():
        for p in tuned: p.add_(.3*p.std(correction=0)*torch.randn_like(p))
    later = price()
    later.backward()
    assert later.item() > 0 and later.isfinite()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in tuned)
    others = [*ctx.frozen.parameters(), *ctx.sae.parameters(), *ctx.clip.model.parameters()]
    assert all(p.grad is None for p in others)
    assert not any(m._forward_hooks for o in (ctx.classifier, ctx.frozen) for m in o.modules())

def test_flyp_is_the_symmetric_contrastive_loss_in_loops(ctx):
    loss = Contrastive(ctx.clip, WORDS, ['{}']).eval()
    z, y = torch.randn(5, ctx.clip.d), torch.tensor([0, 1, 2, 3, 1])
    u, t = F.normalize(z, dim=-1), class_embeddings(ctx.clip, WORDS, ['{}'])[y]
    sim = (ctx.scale*u @ t.T).tolist()
    def ce_of(i, row): return math.log(sum(math.exp(v - row[i]) for v in row))
    def ce(rows): return sum(ce_of(i, row) for i, row in enumerate(rows))/len(rows)
    assert loss(z, None, y).item() == pytest.approx((ce(sim) + ce([list(c) for c in zip(*sim)]))/2, abs=1e-4)

def test_flyp_trains_a_copy_of_the_text_tower(ctx):
    model = ctx.clip.model
    before = {k: v.clone() for k, v in model.state_dict().items()}
    loss = Contrastive(ctx.clip, WORDS, SENTENCES)
    loss(torch.randn(4, ctx.clip.d), None, torch.arange(4)).backward()
    opt = torch.optim.SGD(loss.parameters(), .1)
    opt.step()
    W = ctx.classifier.head.weight.clone()
    loss.refresh(ctx.classifier)
    assert not torch.equal(W, ctx.classifier.head.weight) and ctx.clip.model is model
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

def test_contexts_are_class_means_of_each_template(ctx):
    W = contexts(ctx)
    for row, t in zip(W, SENTENCES):
        mean = class_embeddings(ctx.clip, WORDS, [t]).mean(0)
        assert torch.allclose(row, mean/mean.norm(), atol=1e-6)

def test_random_texts_repeat_with_the_seed(ctx):
    a = random_texts(ctx, 12)
    assert torch.equal(a, random_texts(ctx, 12)) and torch.allclose(a.norm(dim=1), torch.ones(12), atol=1e-5)
    ctx.seed = 1
    assert not torch.equal(a, random_texts(ctx, 12))

@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8))
def test_wise_lies_between_its_ends(alpha, values):
    a = dict(w=torch.tensor(values), n=torch.tensor(3))
    b = dict(w=torch.tensor(values[::-1]), n=torch.tensor(5))
    low, high, mid = torch.minimum(a['w'], b['w']), torch.maximum(a['w'], b['w']), wise(a, b, alpha)['w']
    assert (mid >= low - 1e-4).all() and (mid <= high + 1e-4).all()
    assert torch.equal(wise(a, b, 0)['w'], a['w']) and torch.equal(wise(a, b, 1)['w'], b['w'])
    assert wise(a, b, alpha)['n'] == 3

@pytest.mark.parametrize('name', ['drrho', 'drrho-flyp'])
def test_steering_weighs_pictures_and_keeps_nothing_of_the_frozen_model_in_its_state(name, ctx):
    objective, y = METHODS[name].objective(ctx), torch.tensor([0, 1, 2, 3, 1, 2])
    z0 = torch.randn(6, ctx.clip.d)
    z = (z0 + torch.randn(6, ctx.clip.d)).requires_grad_()
    loss = objective(z, ctx.classifier.classify(z), y, z0)
    loss.backward()
    assert loss.isfinite() and z.grad.abs().sum() > 0 and all(p.grad is None for p in ctx.frozen.parameters())
    assert not {'weight', 'bias', 'texts'} & set(objective.state_dict())
    ctx.tau = .3
    assert METHODS[name].objective(ctx).tau == .3
