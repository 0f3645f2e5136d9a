"""Variants of SAE-FT, tried on the embedded default: each is a price, and the rest is the package's.

    python tests/trials/variants.py [--root runs/variants] [--to nbs/results/variants.csv] [--workers 2]
                                    [--seeds 0 1] [--only NAME ...] [--corpus FILE]

Each variant is tuned with each of its strengths; called again, the script makes what is missing. A row of
the file is a run: validation accuracy, and the mean accuracy of each kind of splits, 0 to 1. What was found
stands in `nbs/07_shifts_heads.ipynb`. `--corpus` is an SAE for the variant of that name, which is not made
again without one: by `train_sae` (k 8, expansion 4, 15 epochs, seed 0) of the embeddings of 30,000 icons of
`pre` in `nbs/iconclip.ipynb`, drawn with the weights of pre-training. About 40 s a run on two cores, twice
that with views."""
import argparse, math, multiprocessing, os, shutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from sae_ft.activations import Taps
from sae_ft.evaluation import embed_splits
from sae_ft.experiment import run
from sae_ft.losses import LDIFS, Move, Regulariser
from sae_ft.losses_sae import Preservation
from sae_ft.methods import METHODS, Method, random_texts, with_sae
from sae_ft.plumbing.devices import autocast
from sae_ft.runs import is_finished, load_run
from sae_ft.sae_train import train_sae
from sae_ft.settings import Config
from sae_ft.shifts import per_run
from sae_ft.suites import load_suite

# --- feature terms that survive a hard Top-k

class Strengths(Regulariser):
    "A price on p, the strengths before Top-k. Features among the first k of the frozen model are on."
    needs = frozenset({'z0', 'codes'})
    def __init__(self, sae): self.sae = sae.requires_grad_(False)

    def price(self, move):
        sae = self.sae
        p = sae.pre(sae.normalise(move.z))                         # (B, n)
        with torch.no_grad():
            p0 = sae.pre(sae.normalise(move.z0))
            weakest = p0.topk(sae.k, dim=-1).values[:, -1:]        # (B, 1), of those that are on
        return self.of(p, p0, weakest).sum(-1).mean()

class Margin(Strengths):
    "A feature that was off may rise to half of the weakest one that was on, no higher."
    def of(self, p, p0, weakest): return (p - torch.maximum(p0, weakest/2)).relu()*(p0 < weakest)

class Kept(Margin):
    "The same, and a feature that was on may not fade."
    def of(self, p, p0, weakest): return super().of(p, p0, weakest) + (p0 - p).relu()*(p0 >= weakest)

class Dense(Strengths):
    "No strength may change, on or off; times k/n, so that it is of the size of the others."
    def of(self, p, p0, weakest): return (p - p0).abs()*self.sae.k/self.sae.n

class Weighted(Preservation):
    "The same, where a feature weighs as its direction spreads over random sentences."
    def __init__(self, sae, texts):                                # texts (M, d), unit rows
        super().__init__(sae)
        spread = (F.normalize(sae.decoder.weight.detach(), dim=0).T @ texts.T).std(1)
        self.weight = spread/spread.mean()                         # (n,)
    def price(self, move):
        s, s0 = move.codes(self.sae)
        return (s.abs()*(s0 == 0)*self.weight).sum(-1).mean()

# --- SAEs at several depths

def pooled(h): return h.float().mean((2, 3)) if h.ndim == 4 else h.float()

class Pooled(nn.Module):
    "A classifier that encodes to what its taps saw, side by side."
    def __init__(self, classifier, taps):
        super().__init__()
        self.inner, self.taps, self.visual = classifier, taps, classifier.visual
    def encode(self, x):
        self.inner.encode(x)
        return torch.cat([pooled(h) for h in self.taps.last.values()], 1)

class Deep(LDIFS):
    "SAE-FT's price on the pooled activations of each tap of LDIFS, a mean over taps."
    def __init__(self, taps, taps0, terms):
        super().__init__(taps, taps0)
        self.terms = terms
    def price(self, move):
        moves = {k: Move(pooled(self.taps.last[k]), pooled(self.taps0.last[k])) for k in self.terms}
        return sum(sum(t.parts_of(moves[k]).values()) for k, t in self.terms.items())/len(self.terms)

def deep(ctx):
    taps, taps0 = Taps(ctx.classifier.visual), Taps(ctx.frozen.visual)
    with taps0:
        pictures = dict(train=load_suite(progress=False).train)
        z, _ = embed_splits(Pooled(ctx.frozen, taps0), pictures, progress=False)['train']
        sizes = {k: pooled(h).shape[1] for k, h in taps0.last.items()}
    def term(h):
        sae, _ = train_sae(h.contiguous(), expansion=4, k=8, epochs=40, seed=ctx.seed, progress=False)
        return usual(replace(ctx, sae=sae))
    return Deep(taps, taps0, {k: term(h) for k, h in zip(sizes, z.split([*sizes.values()], 1))})

# --- the price on other views of the pictures too

def view(
    x,  # (B, 3, H, W), from -1 to 1
):      # the same shape: recoloured, inverted, or with thicker or thinner dark strokes
    n = len(x)
    paper, ink = 2*torch.rand(2, n, 3, 1, 1) - 1
    recoloured = (ink + (paper - ink)*(x.mean(1, keepdim=True) + 1)/2).to(x.dtype)
    thicker, thinner = -F.max_pool2d(-x, 3, 1, 1), F.max_pool2d(x, 3, 1, 1)
    which = torch.rand(n, 1, 1, 1)
    shape = torch.where(which < .8, thicker, thinner)
    return torch.where(which < .4, recoloured, torch.where(which < .6, -x, shape))

class Viewed(Regulariser):
    "The mean of a price on the crops of a batch and on a view of each."
    needs = frozenset({'z0'})
    def __init__(self, ctx, inner): self.ctx, self.inner, self.x = ctx, inner, None
    @contextmanager
    def attached(self):
        def keep(module, inputs): self.x = inputs[0]
        hook = self.ctx.classifier.visual.register_forward_pre_hook(keep)
        try: yield
        finally: hook.remove()
    def parts_of(self, move):
        x = view(self.x)
        with autocast(x.device, 'auto'):
            with torch.no_grad(): z0 = self.ctx.frozen.encode(x)
            z = self.ctx.classifier.encode(x)
        a, b = self.inner.parts_of(move), self.inner.parts_of(Move(z, z0))
        return {k: (a[k] + b[k])/2 for k in a}

# --- strength over the run

class Scheduled(Regulariser):
    "A price whose strength goes from 0 to 2 over the run, or back."
    needs = frozenset({'z0', 'codes'})
    def __init__(self, inner, steps, rises):
        self.inner, self.steps, self.rises, self.step = inner, steps, rises, 0
    def parts_of(self, move):
        part = min(1, self.step/self.steps)
        self.step += 1
        weight = 2*part if self.rises else 2*(1 - part)
        return {k: weight*v for k, v in self.inner.parts_of(move).items()}

def steps_of(cfg): return cfg.epochs*math.ceil(len(load_suite(progress=False).train)/cfg.batch_size)

# --- rows

usual = METHODS['sae-ft'].regulariser
def text(ctx): return with_sae(lambda sae: Weighted(sae, random_texts(ctx)))(ctx)

STEPS = None  # of a run; set by `one`
TRIED = {     # name -> price for lam = 1, and strengths
    'margin': (with_sae(Margin), (.3, 1)),
    'kept': (with_sae(Kept), (.1, .3)),
    'dense': (with_sae(Dense), (.1, .3)),
    'text': (text, (1, 3)),
    'deep': (deep, (1, 3)),
    'rising': (lambda c: Scheduled(usual(c), STEPS, True), (1, 3)),
    'falling': (lambda c: Scheduled(usual(c), STEPS, False), (1, 3)),
    'corpus': (usual, (1, 3)),
    'views': (lambda c: Viewed(c, usual(c)), (1, 3)),
    'l2-views': (lambda c: Viewed(c, METHODS['l2'].regulariser(c)), (3, 10))}
METHODS |= {k: Method(k, 'a variant of SAE-FT', regulariser=price) for k, (price, _) in TRIED.items()}

def zero_shot(root, seed):
    return dict(method='zero-shot', seed=seed, threads=1, out_dir=f'{root}/zero-shot-seed{seed}')

def settings(root, name, lam, seed, corpus):
    sae = corpus if name == 'corpus' else f"{zero_shot(root, seed)['out_dir']}/sae.safetensors"
    return dict(method=name, lam=float(lam), seed=seed, threads=1, sae=sae,
                out_dir=f'{root}/{name}-lam{lam:g}-seed{seed}')

def one(how):
    "A run, from its first step: the strength over a run, and views, would not go on as they were."
    global STEPS
    folder = Path(how['out_dir'])
    if is_finished(folder): return
    shutil.rmtree(folder, ignore_errors=True)
    cfg = Config(**how)
    STEPS = steps_of(cfg)
    run(cfg, progress=False)
    print(folder.name, flush=True)

def row(folder):
    done = load_run(folder)
    accuracy = per_run([done])[['id', 'near', 'far', 'transfer']].iloc[0].round(4).to_dict()
    cfg, val = done.config, done.of('epoch')[-1]['val_accuracy']
    return dict(variant=cfg.method, lam=cfg.lam, seed=cfg.seed, val=round(val, 4), **accuracy)

def main():
    import pandas as pd
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--root', default='runs/variants')
    parser.add_argument('--to', default='nbs/results/variants.csv')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1])
    parser.add_argument('--only', nargs='+', choices=TRIED, default=list(TRIED))
    parser.add_argument('--corpus')
    o = parser.parse_args()
    os.environ['OMP_NUM_THREADS'] = '1'
    names = [k for k in o.only if k != 'corpus' or o.corpus]
    first = [zero_shot(o.root, seed) for seed in o.seeds]
    runs = [settings(o.root, k, lam, s, o.corpus) for k in names for s in o.seeds for lam in TRIED[k][1]]
    new = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(o.workers, mp_context=new, max_tasks_per_child=1) as pool:
        for todo in (first, runs):
            for _ in pool.map(one, todo): pass
    table = pd.DataFrame([row(Path(how['out_dir'])) for how in runs])
    if Path(o.to).is_file():  # what is not made now stays
        old = pd.read_csv(o.to)
        table = pd.concat([old[~old.variant.isin(names)], table])
    table.sort_values('variant', key=lambda v: v.map([*TRIED].index), kind='stable').to_csv(
        o.to, index=False, lineterminator='\n')
    print(table.drop(columns='seed').groupby(['variant', 'lam'], sort=False).mean().round(3))

if __name__ == '__main__': main()
