"The loop, on parts of the embedded default."
import re

import torch
from hypothesis import given, settings, strategies as st

from sae_ft.clip import load_clip, zero_shot
from sae_ft.methods import Context, get_method
from sae_ft.settings import Config
from sae_ft.suites import load_suite
from sae_ft.trainer import finetune, lr_at
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
