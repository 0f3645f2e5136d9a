"The loop, on parts of the embedded default."
import re

import pytest
import torch
from hypothesis import given, settings, strategies as st

from sae_ft.clip import load_clip, zero_shot
from sae_ft.lora import plain_state
from sae_ft.methods import Context, CrossEntropy, get_method
from sae_ft.plumbing.resume import Checkpoint
from sae_ft.settings import RULES, Config
from sae_ft.suites import load_suite
from sae_ft.trainer import TRAINABLE, finetune, lr_at
from tiny_runs import TINY

@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 10), st.integers(1, 300), st.floats(0, 1))
def test_the_learning_rate_rises_then_falls_and_stays_in_bounds(lr, total, warmup):
    lrs, w = [lr_at(t, total, lr, warmup) for t in range(total)], round(warmup*total)
    assert all(0 <= o <= lr*(1 + 1e-9) for o in lrs)
    assert lrs[:w] == sorted(lrs[:w]) and lrs[w:] == sorted(lrs[w:], reverse=True)

def test_a_longer_training_of_the_same_pictures_fits_them_better():
    clip, suite = load_clip(), load_suite(limit=64)
    model = zero_shot(clip, suite.classnames, suite.templates)
    _, history = finetune(model, suite, cfg=Config(**{**TINY, 'epochs': 6, 'method': 'ft'}), progress=False)
    ce = [o['ce'] for o in history if o['event'] == 'step']
    assert sum(ce[-2:]) < .8*sum(ce[:2])

def test_batch_norm_keeps_its_statistics():
    clip, suite = load_clip(), load_suite(limit=32)
    model = zero_shot(clip, suite.classnames, suite.templates)
    stats = {k: v.clone() for k, v in model.state_dict().items() if re.search('running_|num_batches', k)}
    finetune(model, suite, cfg=Config(**TINY), progress=False)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in stats.items())

def test_an_objective_is_logged_by_its_name():
    clip, suite = load_clip(), load_suite(limit=32)
    model = zero_shot(clip, suite.classnames, suite.templates, keep_text=True)
    ctx = Context(clip, model, suite.classnames, suite.templates, None, None)
    flyp = get_method('flyp')
    cfg = Config(**{**TINY, 'method': 'flyp'})
    _, history = finetune(model, suite, None, cfg, flyp.stages, progress=False, objective=flyp.objective(ctx))
    steps = [o for o in history if o['event'] == 'step']
    assert steps and all('infonce' in o and 'ce' not in o and o['loss'] == o['infonce'] for o in steps)

class Poisoned(CrossEntropy):
    "Cross-entropy that becomes nan at one of its calls."
    def __init__(self, at):
        super().__init__()
        self.at, self.calls = at, 0
    def forward(self, z, logits, y):
        self.calls += 1
        return super().forward(z, logits, y)*(float('nan') if self.calls == self.at else 1.)

def test_steps_after_one_that_is_not_finite_change_nothing_and_it_is_named():
    clip, suite = load_clip(), load_suite(limit=96)
    def tuned(at, log_every):
        model, seen = zero_shot(clip, suite.classnames, suite.templates, keep_text=True), Poisoned(at)
        cfg = Config(**{**TINY, 'method': 'ft', 'batch_size': 16, 'log_every': log_every})
        with pytest.raises(ValueError) as error:
            finetune(model, suite, cfg=cfg, progress=False, objective=seen)
        return str(error.value), model.state_dict(), seen.calls
    said, early, calls = tuned(3, 1)     # looked at after every step
    said5, late, calls5 = tuned(3, 5)    # three steps later
    assert (calls, calls5) == (3, 6) and said == said5
    assert said.startswith('the loss became nan at step 2, in the batch of 16 training pictures')
    assert all(torch.equal(v, early[k]) and v.isfinite().all() for k, v in late.items())

def test_compile_compiles_the_tower_and_not_by_default(monkeypatch):
    clip, suite, compiled = load_clip(), load_suite(limit=32), []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda self: compiled.append(self))
    for on in (False, True):
        model = zero_shot(clip, suite.classnames, suite.templates, keep_text=True)
        finetune(model, suite, cfg=Config(**{**TINY, 'compile': on}), stages=(), progress=False)
    assert compiled == [model.visual]

class Cut(Exception): pass

def cut_at_news(seen):
    "`log` that raises at its first line that was not seen."
    def log(**o):
        if o in seen: return
        seen.append(o)
        raise Cut
    return log

@pytest.mark.parametrize('method, trainable', [('lp-ft', 'lora'), ('drrho-flyp', 'lora')])
def test_what_is_cut_anywhere_goes_on_to_the_same_bits(method, trainable, tmp_path):
    clip, suite, row = load_clip(), load_suite(limit=48, progress=False), get_method(method)
    cfg = Config(**{**TINY, 'method': method, 'trainable': trainable, 'batch_size': 24, 'lr': 1e-3})
    def tuned(checkpoint=None, log=None):
        model = zero_shot(clip, suite.classnames, suite.templates, keep_text=True)
        torch.manual_seed(5)
        ctx = Context(clip, model, suite.classnames, suite.templates, None, None)
        objective, stages = row.objective and row.objective(ctx), row.stages_of(trainable)
        finetune(model, suite, None, cfg, stages, log, False, objective, checkpoint=checkpoint)
        return model.state_dict()
    want, got, seen = tuned(), None, []
    while got is None:
        try: got = tuned(Checkpoint(tmp_path/'tune.safetensors', every=0), cut_at_news(seen))
        except Cut: pass
    before = zero_shot(clip, suite.classnames, suite.templates, keep_text=True).state_dict()
    assert len(seen) > 2 and got.keys() == before.keys() == want.keys()
    assert all(torch.equal(v, got[k]) for k, v in want.items())
    assert sum(not torch.equal(v, before[k]) for k, v in got.items()) > 10

def test_after_every_epoch_of_lora_the_state_is_plain():
    clip, suite = load_clip(), load_suite(limit=32, progress=False)
    model = zero_shot(clip, suite.classnames, suite.templates)
    names, kept = list(model.state_dict()), []
    finetune(model, suite, cfg=Config(**{**TINY, 'method': 'ft'}), stages=('lora',), progress=False,
             on_epoch=lambda n: kept.append(plain_state(model)))
    state = model.state_dict()
    assert list(kept[-1]) == list(state) == names
    assert all(torch.equal(v, state[k]) for k, v in kept[-1].items())

@pytest.mark.parametrize('method, highest', [('lp-ft', (.02, 1e-4)), ('lp-l2', (.02, 1e-4)), ('lp', (1e-4,))])
def test_a_head_that_is_trained_first_has_its_own_rate(method, highest):
    clip, suite = load_clip(), load_suite(limit=32, progress=False)
    model = zero_shot(clip, suite.classnames, suite.templates, keep_text=True)
    how = dict(method=method, lr=1e-4, head_lr=.02, warmup=0., batch_size=8, log_every=1)
    row = get_method(method)
    reg = row.regulariser and row.regulariser(Context(clip, model, [], [], None, None))
    _, lines = finetune(model, suite, reg, Config(**{**TINY, **how}), row.stages, progress=False)
    rates = [o['lr'] for o in lines if o['event'] == 'step']
    n = len(rates)//len(highest)
    assert [max(rates[i*n:(i + 1)*n]) for i in range(len(highest))] == list(highest)

def test_all_that_can_be_trained_can_be_set():
    ok, _ = RULES['trainable']
    assert all(map(ok, TRAINABLE)) and not ok('tower')
    assert get_method('lp-ft').stages_of('lora') == ('head', 'lora')
    assert get_method('lp').stages_of('lora') == ('head',)

def test_a_step_of_several_batches_is_that_of_one(tmp_path):
    clip, suite = load_clip(), load_suite(limit=80, progress=False)
    def tuned(checkpoint=None, log=None, **sizes):
        model = zero_shot(clip, suite.classnames, suite.templates, keep_text=True)
        cfg = Config(**{**TINY, 'method': 'ft', 'lr': 1e-5, **sizes})
        _, lines = finetune(model, suite, cfg=cfg, log=log, progress=False, checkpoint=checkpoint)
        return model.state_dict(), [o for o in lines if o['event'] == 'step']
    assert len(suite.train) % 33 == 14  # the last step is a batch of eleven and one of three
    (whole, lines), (parts, lines2) = tuned(batch_size=33), tuned(batch_size=11, global_batch=33)
    assert len(lines) == len(lines2) == 3
    for a, b in zip(lines, lines2):
        assert (a.pop('event'), a) == (b.pop('event'), pytest.approx(b, rel=1e-4))
    assert all(torch.allclose(v, parts[k], atol=1e-5) for k, v in whole.items())
    sizes, seen, got = dict(batch_size=11, global_batch=33), [], None
    while got is None:
        try: got, _ = tuned(Checkpoint(tmp_path/'tune.safetensors', every=0), cut_at_news(seen), **sizes)
        except Cut: pass
    assert len(seen) > 2 and all(torch.equal(v, got[k]) for k, v in parts.items())
