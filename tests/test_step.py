"""A step: what is not finite changes nothing, and nothing waits for a number.

Reading a number from a GPU takes as long as all that is queued there.
These run on a CPU, where a copy to the CPU is no operation: so calls are watched by their names, and
operations that must know values. What torch's optimiser reads is not counted: it counts on the CPU."""
from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sae_ft.clip import load_clip, zero_shot
from sae_ft.methods import METHODS, Context, get_method
from sae_ft.sae import TopKSAE
from sae_ft.sae_kinds import SAES
from sae_ft.sae_train import Tally, train_step
from sae_ft.settings import Config
from sae_ft.suites import load_suite
from sae_ft.trainer import Tuning, finetune
from tiny_runs import TINY

CALLS = 'item', 'tolist', 'cpu', 'numpy', '__bool__', '__float__', '__int__', '__index__', '__contains__'
OPERATIONS = ('_local_scalar_dense', 'is_nonzero', 'nonzero', 'masked_select', 'equal', 'allclose', '_unique',
              '_unique2', 'unique_dim', 'unique_consecutive', 'repeat_interleave')

class _Calls(TorchFunctionMode):
    def __init__(self, found):
        super().__init__()
        self.found = found
    def __torch_function__(self, f, types, args=(), kwargs=None):
        name, kwargs = getattr(f, '__name__', ''), kwargs or {}
        to_cpu = name == 'to' and 'cpu' in (*map(_text, args[1:]), _text(kwargs.get('device')))
        if name in CALLS or to_cpu: self.found.append(name)
        return f(*args, **kwargs)

def _text(value): return value if isinstance(value, str) else None

class _Operations(TorchDispatchMode):
    def __init__(self, found):
        super().__init__()
        self.found = found
    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        name = f.overloadpacket.__name__
        if name in OPERATIONS or self.counts(name, args): self.found.append(name)
        return f(*args, **kwargs or {})
    def counts(self, name, args):
        "Whether an index is a mask, of which the true ones are counted; one value for all needs no count."
        if name not in ('index', 'index_put', 'index_put_', '_index_put_impl_'): return False
        one_value = name != 'index' and args[2].numel() == 1
        return not one_value and any(o is not None and o.dtype == torch.bool for o in args[1])

@contextmanager
def waiting(found):
    "Within it, what waits for the device is added to a list."
    with _Calls(found), _Operations(found): yield

@pytest.fixture(scope='module')
def ready():
    "CLIP, classifier and suite of four batches; not to be changed."
    clip, suite = load_clip(), load_suite(limit=4*TINY['batch_size'], progress=False)
    return clip, zero_shot(clip, suite.classnames, suite.templates, keep_text=True), suite

def watched(monkeypatch, extra):
    "A list that gets, for each step of fine-tuning, what waited in it; `extra` is called in it too."
    step, optimise, seen, found = Tuning.step, torch.optim.AdamW.step, [], []
    def wrapped(*args, **kwargs):
        with waiting(found):
            result = step(*args, **kwargs)
            extra()
        seen.append(found[:])
        found.clear()
        return result
    def uncounted(*args, **kwargs):
        before = len(found)
        result = optimise(*args, **kwargs)
        del found[before:]
        return result
    monkeypatch.setattr(Tuning, 'step', wrapped)
    monkeypatch.setattr(torch.optim.AdamW, 'step', uncounted)
    return seen

def steps(ready, monkeypatch, method, extra=lambda: None):
    "What each step between the first and the last waits for: those two are logged."
    clip, classifier, suite = ready
    torch.manual_seed(0)
    model, row, sae = deepcopy(classifier), get_method(method), TopKSAE(clip.d).requires_grad_(False)
    ctx = Context(clip, model, suite.classnames, suite.templates, sae, lambda: torch.randn(64, clip.d))
    reg, objective = row.regulariser and row.regulariser(ctx), row.objective and row.objective(ctx)
    seen = watched(monkeypatch, extra)
    cfg = Config(**{**TINY, 'method': method, 'log_every': 1000, 'cache': None})
    finetune(model, suite, reg, cfg, row.stages, progress=False, objective=objective,
             frozen=ctx.frozen if reg else None)
    assert len(seen) == 4
    return seen[1:-1]

x = torch.arange(3.)

@pytest.mark.parametrize('waits', [
    lambda: x.sum().item(), lambda: bool(x.any()), lambda: float(x[0]), lambda: int(x[0]), lambda: x.tolist(),
    lambda: x.cpu(), lambda: x.to('cpu'), lambda: x.to(device='cpu'), lambda: x.numpy(),
    lambda: f'{x[0]:.2f}', lambda: x.nonzero(), lambda: torch.where(x > 0), lambda: x[x > 0],
    lambda: x.masked_select(x > 0), lambda: x.clone().index_put_((x > 0,), x[:2]), lambda: x.unique(),
    lambda: torch.equal(x, x), lambda: 1. in x, lambda: list(range(3))[x.argmax()], lambda: max(x[0], x[1])])
def test_what_waits_is_seen(waits):
    with waiting(found := []): waits()
    assert found

@pytest.mark.parametrize('goes_on', [
    lambda: (x*2).sum(), lambda: x.to(x.device), lambda: x.double(), lambda: torch.where(x > 0, x, 0.),
    lambda: x[1:], lambda: x[torch.tensor([0, 2])], lambda: x.clone().masked_fill_(x > 0, 1.),
    lambda: x.topk(2), lambda: len(x), lambda: x.isfinite().all(), lambda: x.split(1),
    lambda: x.clone().index_put_((x > 0,), torch.tensor(0.))])
def test_what_does_not_wait_is_not(goes_on):
    with waiting(found := []): goes_on()
    assert not found

@pytest.mark.parametrize('method', [k for k, m in METHODS.items() if len(m.stages) == 1])
def test_a_step_that_is_not_logged_waits_for_nothing(ready, monkeypatch, method):
    assert steps(ready, monkeypatch, method) == [[], []]

def test_an_item_in_a_step_is_seen(ready, monkeypatch):
    assert all('item' in o for o in steps(ready, monkeypatch, 'ft', extra=lambda: x.sum().item()))

def fitting(kind, extra=lambda: None):
    "What a step of an SAE with dead features waits for, on a device that is no CPU and has no values."
    with torch.device('meta'):
        sae, u, silent = SAES[kind](12, 8, k=2).train(), torch.empty(25, 12), torch.empty(96)
        tally = Tally(sae, torch.empty(()))
    with waiting(found := []):
        train_step(sae, torch.optim.SGD(sae.parameters()), u, tally, silent, 25, 1/32)
        extra()
    return found

@pytest.mark.parametrize('kind', SAES)
def test_a_step_of_an_sae_waits_for_nothing(kind): assert not fitting(kind)

def test_an_item_in_a_step_of_an_sae_is_seen(): assert 'item' in fitting('topk', extra=lambda: x.sum().item())
