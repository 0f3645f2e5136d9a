"Regularisers written as plain loops in float64, for tests alone."
import math

import numpy as np
import torch

from sae_ft.losses import L2
from sae_ft.losses_sae import Preservation, Residual, Sparse
from sae_ft.sae import TopKSAE

def setup(normalize=True, B=7, d=5, expansion=3, k=4, seed=0):
    "A double-precision SAE with unrelated weights, z and z0."
    torch.manual_seed(seed)
    sae = TopKSAE(d, expansion, k, normalize).double()
    for p in sae.parameters(): p.data = torch.randn_like(p)
    z0 = 2*torch.randn(B, d, dtype=torch.float64)
    return sae, z0 + 2*torch.randn_like(z0), z0

def unit(z, normalize): return [v/math.sqrt(sum(w*w for w in z)) for v in z] if normalize else z

def loops(sae, z, z0):
    "Residual, sparse, preservation and L2, summed by picture and averaged over the batch, with loops."
    s, s0, D = sae.encode(z).tolist(), sae.encode(z0).tolist(), sae.decoder.weight.tolist()
    total = dict(residual=0., sparse=0., preservation=0., l2=0.)
    for zi, z0i, si, s0i in zip(z.tolist(), z0.tolist(), s, s0):
        u, u0 = unit(zi, sae.normalize), unit(z0i, sae.normalize)
        for j in range(len(u)):
            total['residual'] += (u[j] - u0[j] - sum(D[j][i]*(si[i] - s0i[i]) for i in range(len(si))))**2
            total['l2'] += (u[j] - u0[j])**2
        for a, b in zip(si, s0i):
            total['sparse'] += abs(a - b)
            if b == 0: total['preservation'] += abs(a)
    return {k: v/len(z) for k, v in total.items()}

def regs(sae):
    return dict(residual=Residual(sae), sparse=Sparse(sae), preservation=Preservation(sae),
                l2=L2(sae.normalize))

def change(z, z0, normalize):
    "Rows of du, with loops."
    def du(x, y): return [a - b for a, b in zip(unit(x, normalize), unit(y, normalize))]
    return [du(x, y) for x, y in zip(z.tolist(), z0.tolist())]

def singular_values(rows):
    "From the eigenvalues of the Gram matrix."
    gram = [[sum(a*b for a, b in zip(x, y)) for y in rows] for x in rows]
    return [math.sqrt(max(v, 0.)) for v in np.linalg.eigvalsh(np.array(gram)) if v > 1e-12]

def distribution(s, eps=0.): return [(abs(v) + eps)/sum(abs(w) + eps for w in s) for v in s]

def costs(sae):
    "1 - D_i D_j of unit columns, or 0, for all pairs of features."
    D = [unit(r, True) for r in sae.decoder.weight.T.tolist()]
    return [[max(1 - sum(a*b for a, b in zip(p, q)), 0.) for q in D] for p in D]

def plain_sinkhorn(a, b, C, eps, iters, everywhere=False):
    "Transport cost with ordinary scaling vectors over the whole dictionary."
    K = [[math.exp(-c/eps) for c in row] for row in C]
    u, v = [1.]*len(a), [float(everywhere or y > 0) for y in b]
    for _ in range(iters):
        u = [x/sum(k*w for k, w in zip(row, v)) for x, row in zip(a, K)]
        v = [y/sum(K[i][j]*u[i] for i in range(len(a))) for j, y in enumerate(b)]
    return sum(u[i]*K[i][j]*v[j]*C[i][j] for i in range(len(a)) for j in range(len(b)))
