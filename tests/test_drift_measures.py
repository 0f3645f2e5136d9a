"Drift measures against plain loops in float64."
import math

import pytest
import torch

from sae_ft.drift_measures import CKA, Drift, cka, cka_transposed, entropy, jaccard, measure_drift, preserved
from sae_ft.sae import TopKSAE, fvu

def pair(N=40, dx=4, dy=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N, dx, generator=g, dtype=torch.float64)
    turn = torch.randn(dx, dy, generator=g, dtype=torch.float64)
    return x, x @ turn + torch.randn(N, dy, generator=g, dtype=torch.float64)

def centred(x):
    rows = x.tolist()
    mean = [sum(r[j] for r in rows)/len(rows) for j in range(len(rows[0]))]
    return [[v - m for v, m in zip(r, mean)] for r in rows]

def square_sum(a, b):
    "|A^T B|_F^2"
    places = [(i, j) for i in range(len(a[0])) for j in range(len(b[0]))]
    return sum(sum(r[i]*q[j] for r, q in zip(a, b))**2 for i, j in places)

def test_cka_is_the_formula():
    x, y = pair()
    a, b = centred(x), centred(y)
    want = square_sum(b, a)/math.sqrt(square_sum(a, a)*square_sum(b, b))
    assert cka(x, y) == pytest.approx(want, abs=1e-6)

def test_streaming_is_exact_far_from_zero():
    x, y = (o + 1000 for o in pair(500))
    acc = CKA()
    for i in range(0, 500, 77): acc.add(x[i:i+77], y[i:i+77])
    assert acc.result() == pytest.approx(cka(x - 1000, y - 1000), abs=1e-6)

def test_what_cka_sees_and_what_not():
    x, _ = pair(2000, 8)
    g = torch.Generator().manual_seed(1)
    Q = torch.linalg.qr(torch.randn(8, 8, generator=g, dtype=torch.float64))[0]
    assert [cka(x, x), cka(x, x @ Q), cka(x, -3*x + 7)] == pytest.approx([1, 1, 1], abs=1e-6)
    assert cka(x, x[torch.randperm(2000, generator=g)]) < .02

def gram(x):
    "d x d products of columns, row means and column means taken off."
    d = len(x[0])
    k = [[sum(r[i]*r[j] for r in x) for j in range(d)] for i in range(d)]
    mean = [sum(r)/d for r in k]
    return [k[i][j] - mean[i] - mean[j] + sum(mean)/d for i in range(d) for j in range(d)]

def test_transposed_is_the_formula():
    x, y = pair(dy=4)
    k, l = gram(x.tolist()), gram(y.tolist())
    want = sum(a*b for a, b in zip(k, l))/math.sqrt(sum(a*a for a in k)*sum(b*b for b in l))
    assert cka_transposed(x, y) == pytest.approx(want, abs=1e-9)

def test_transposed_sees_places_and_not_pictures():
    x, _ = pair(200, 8)
    x = x/torch.arange(1, 9)
    g = torch.Generator().manual_seed(1)
    Q = torch.linalg.qr(torch.randn(8, 8, generator=g, dtype=torch.float64))[0]
    assert cka_transposed(x, x @ Q) < .9
    assert cka_transposed(x, x.flip(0)) == pytest.approx(1)
    with pytest.raises(ValueError, match='8 and 3 numbers'): cka_transposed(x, x[:, :3])

def test_cka_refuses():
    with pytest.raises(ValueError, match='there are 3 and 2 rows'): cka(torch.zeros(3, 2), torch.zeros(2, 2))
    one = torch.zeros(1, 2)
    with pytest.raises(ValueError, match='two pictures at least, not 1'): cka(one, one)
    with pytest.raises(ValueError, match='two pictures at least, not 0'): CKA().result()

def test_preserved_and_jaccard_are_the_formula():
    g = torch.Generator().manual_seed(0)
    s0, s = (torch.rand(30, 12, generator=g)*(torch.rand(30, 12, generator=g) < .3) for _ in range(2))
    s0[3] = 0
    def on(row): return {i for i, v in enumerate(row) if v}
    sets = [(on(a), on(b)) for a, b in zip(s0.tolist(), s.tolist())]
    kept = [len(a & b)/len(a) for a, b in sets if a]
    over = [len(a & b)/len(a | b) for a, b in sets if a | b]
    assert preserved(s0, s) == pytest.approx(sum(kept)/len(kept), abs=1e-6)
    assert jaccard(s0, s) == pytest.approx(sum(over)/len(over), abs=1e-6)
    assert preserved(s0, s0) == jaccard(s0, s0) == 1

def test_entropy_is_the_formula():
    s = torch.rand(30, 12, generator=torch.Generator().manual_seed(0))
    mean = [sum(r[i] for r in s.tolist())/30 for i in range(12)]
    p = [m/sum(mean) for m in mean]
    assert entropy(s) == pytest.approx(-sum(o*math.log(o) for o in p), abs=1e-6)
    assert entropy(torch.eye(8)) == pytest.approx(math.log(8))
    assert entropy(torch.tensor([[2., 0.], [1., 0.]])) == 0

def test_drift_puts_them_together():
    torch.manual_seed(0)
    sae, z0 = TopKSAE(6, k=2), torch.randn(50, 6)
    still, moved = measure_drift(sae, z0, z0), measure_drift(sae, z0, z0 + torch.randn(50, 6))
    assert ' '.join(still) == ('cka cka_transposed fvu_before fvu fvu_zero '
                               'preserved jaccard entropy_before entropy')
    assert still['cka'] == pytest.approx(1) and still['fvu'] == still['fvu_before']
    assert still['preserved'] == still['jaccard'] == 1
    assert moved['cka'] < .9 and moved['preserved'] < 1
    assert moved['fvu_before'] == still['fvu_before']
    assert still['fvu_zero'] == pytest.approx(fvu(sae.normalise(z0), sae(z0), 'zero').item())

def test_drift_in_batches_is_drift_at_once_and_each_formula():
    torch.manual_seed(1)
    sae, z0 = TopKSAE(6, k=2).double(), torch.randn(50, 6, dtype=torch.float64)
    z = z0 + torch.randn(50, 6)
    whole, parts = measure_drift(sae, z0, z), Drift(sae)
    for a, b in zip(z0.split(7), z.split(7)): parts.add(a, b)
    assert parts.result() == pytest.approx(whole, abs=1e-9)
    u, s0, s = sae.normalise(z), sae.encode(z0), sae.encode(z)
    by_formula = dict(
        cka=cka(z0, z), cka_transposed=cka_transposed(z0, z), fvu=fvu(u, sae.decode(s)).item(),
        fvu_before=fvu(sae.normalise(z0), sae.decode(s0)).item(),
        fvu_zero=fvu(u, sae.decode(s), 'zero').item(), preserved=preserved(s0, s),
        jaccard=jaccard(s0, s), entropy_before=entropy(s0), entropy=entropy(s))
    assert whole == pytest.approx(by_formula, abs=1e-9)
    with pytest.raises(ValueError, match='there are 50 and 49 rows'): measure_drift(sae, z0, z[1:])

def test_pictures_that_do_not_count_are_left_out_of_drift():
    torch.manual_seed(2)
    sae, z0, z = TopKSAE(6, k=2), torch.randn(50, 6), torch.randn(50, 6)
    there = torch.arange(50) % 3 > 0
    assert measure_drift(sae, z0, z, there) == measure_drift(sae, z0[there], z[there])
    assert measure_drift(sae, z0, z) != measure_drift(sae, z0, z, there)
