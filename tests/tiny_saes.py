"SAEs of a few dimensions, embeddings for them, and a formula in plain loops; several test files share them."
import functools

import torch

from sae_ft.sae import TopKSAE
from sae_ft.sae_train import train_sae

IMPOSSIBLE = [  # settings of an SAE of embeddings of length 6, and what is said of them
    (dict(k=25), 'k must lie between 1 and the size of the dictionary, 24'),
    (dict(k=0), 'k must lie'),
    (dict(k=-1), 'k must lie'),
    (dict(expansion=.5), 'expansion must be at least 1, not 0.5')]

def random_sae(d=6, seed=0, **kw):
    "A double-precision SAE whose encoder, decoder and bias have nothing to do with each other."
    torch.manual_seed(seed)
    sae = TopKSAE(d, **{**dict(expansion=2, k=3), **kw}).double()
    for p in sae.parameters(): p.data = torch.randn_like(p)
    return sae

def variant(make, n=10, **kw):
    "A double-precision SAE with random parameters, and activations p (8, n) of some samples."
    torch.manual_seed(1)
    sae = make(5, n/5, k=2, **kw).double()
    for p in sae.parameters(): p.data = torch.randn_like(p)
    return sae, sae.pre(torch.randn(8, 5, dtype=torch.float64))

def loop_decode(sae, s):
    "u_hat of one s (a list), by hand."
    rows, b = sae.decoder.weight.tolist(), sae.b_pre.tolist()
    return [sum(w*v for w, v in zip(row, s)) + c for row, c in zip(rows, b)]

def data(N=800, d=12, seed=0):
    "(N, d) sums of three directions with random strengths."
    strengths = torch.randn(N, 3, generator=torch.Generator().manual_seed(seed)).abs()
    return strengths @ torch.randn(3, d, generator=torch.Generator().manual_seed(1))

@functools.cache
def trained(kind, normalize=True):
    "An SAE of a kind, trained for a moment; not to be changed."
    return train_sae(data(200), 2, 3, epochs=3, normalize=normalize, progress=False, kind=kind)[0]
