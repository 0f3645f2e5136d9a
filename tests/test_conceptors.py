"The algebra of conceptors, over random matrices."
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from sae_ft.conceptors import Conceptor, correlation

many = settings(max_examples=40, deadline=None)
seeds, sizes = st.integers(0, 10**6), st.integers(1, 8)
apertures = st.floats(.1, 10)

def axes(d, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=g).double()).Q

def soft(d, seed):
    "Of full rank, with values away from 0 and 1."
    v = .05 + .9*torch.rand(d, generator=torch.Generator().manual_seed(seed + 1)).double()
    U = axes(d, seed)
    return Conceptor((U*v) @ U.T)

def any_kind(d, seed):
    "Values at random; some of them are exactly 0 or 1."
    g = torch.Generator().manual_seed(seed + 1)
    v, which = torch.rand(d, generator=g).double(), torch.rand(d, generator=g)
    v = torch.where(which < .3, 0., torch.where(which > .7, 1., .02 + .96*v))
    U = axes(d, seed)
    return Conceptor((U*v) @ U.T)

def projection(U): return Conceptor(U @ U.T)
def near(A, B, atol=1e-6): return torch.allclose(A.C, B.C, atol=atol)
def smaller(A, B): return torch.linalg.eigvalsh(B.C - A.C)[0] > -1e-6

@many
@given(sizes, seeds)
def test_and_is_the_formula_with_inverses_where_they_exist(d, seed):
    A, B, inv = soft(d, seed), soft(d, seed + 7), torch.linalg.inv
    assert torch.allclose((A & B).C, inv(inv(A.C) + inv(B.C) - torch.eye(d).double()), atol=1e-8)

@many
@given(sizes, seeds, apertures)
def test_or_is_the_conceptor_of_the_sum_of_correlations(d, seed, aperture):
    g = torch.Generator().manual_seed(seed)
    R, Q = (correlation([torch.randn(3*d, d, generator=g)]) for _ in range(2))
    assert near(Conceptor.of(R, aperture) | Conceptor.of(Q, aperture), Conceptor.of(R + Q, aperture))

@many
@given(sizes, seeds)
def test_de_morgan(d, seed):
    A, B = any_kind(d, seed), any_kind(d, seed + 7)
    assert near(~(A & B), ~A | ~B) and near(~(A | B), ~A & ~B) and near(~~A, A)

@many
@given(sizes, seeds)
def test_and_lies_below_both_and_or_above_both(d, seed):
    A, B = any_kind(d, seed), any_kind(d, seed + 7)
    assert smaller(A & A, A) and smaller(A & B, A) and smaller(A & B, B)
    assert smaller(A, A | B) and smaller(B, A | B)
    assert near(A & B, B & A) and near(A | B, B | A)

@many
@given(sizes, seeds)
def test_c_and_c_is_known(d, seed):
    A = any_kind(d, seed)
    U, v = A.axes, A.values
    assert near(A & A, Conceptor((U*(v/(2 - v))) @ U.T))  # (2/v - 1)^-1, below v unless v is 0 or 1

@many
@given(st.integers(2, 8), seeds, st.data())
def test_projections_are_idempotent_and_disjoint_ones_have_nothing_in_common(d, seed, data):
    U, r = axes(d, seed), data.draw(st.integers(1, d - 1))
    P = projection(U[:, :r])
    assert near(P & P, P) and near(P | P, P) and near(P & ~P, Conceptor(torch.zeros(d, d)))
    s = data.draw(st.integers(1, d - r))  # in general position two ranges of r + s <= d meet at 0 alone
    other = projection(torch.linalg.qr(axes(d, seed + 7)[:, :s]).Q)
    assert near(P & other, Conceptor(torch.zeros(d, d)), 1e-5)

@many
@given(st.integers(3, 8), seeds)
def test_the_singular_and_is_found_within_what_both_ranges_share(d, seed):
    U = axes(d, seed)
    A = Conceptor((U[:, :2]*torch.tensor([.5, .8]).double()) @ U[:, :2].T)
    B = Conceptor((U[:, 1:3]*torch.tensor([.25, .9]).double()) @ U[:, 1:3].T)
    want = 1/(1/.8 + 1/.25 - 1)
    assert near(A & B, Conceptor(want*U[:, 1:2] @ U[:, 1:2].T))

@many
@given(sizes, seeds, apertures, st.floats(.1, 10))
def test_aperture_adaptation_is_a_fit_with_another_aperture(d, seed, a, g):
    R = correlation([torch.randn(3*d, d, generator=torch.Generator().manual_seed(seed))])
    assert near(Conceptor.of(R, a).adapted(g), Conceptor.of(R, a*g))

@many
@given(st.integers(2, 8), seeds, st.data())
def test_the_limits_of_the_aperture(d, seed, data):
    r, g = data.draw(st.integers(1, d)), torch.Generator().manual_seed(seed)
    x = torch.randn(4*d, r, generator=g).double() @ axes(d, seed)[:, :r].T
    U = torch.linalg.svd(x, full_matrices=False).Vh[:r].T
    nothing, whole = Conceptor(torch.zeros(d, d)), projection(U)
    assert near(Conceptor.fit(x, 0.), nothing) and near(Conceptor.fit(x, math.inf), whole)
    assert near(Conceptor.fit(x, 1e-5), nothing) and near(Conceptor.fit(x, 1e7), whole, 1e-4)
    C = Conceptor.fit(x, 1.)
    assert near(C.adapted(0.), nothing) and near(C.adapted(math.inf), whole)

@many
@given(sizes, seeds)
def test_quota_similarity_and_evidence(d, seed):
    A, B = soft(d, seed), soft(d, seed + 7)
    assert A.quota == pytest.approx(A.C.trace().item()/d) and A.quota + (~A).quota == pytest.approx(1)
    assert 0 <= A.similarity(B) <= 1 + 1e-9 and A.similarity(B) == pytest.approx(B.similarity(A))
    assert A.similarity(A) == pytest.approx(1)
    x = torch.randn(5, d).double()
    assert torch.allclose(A.evidence(x) + (~A).evidence(x), torch.ones(5).double())

def test_a_stream_gives_what_one_tensor_gives():
    x = torch.randn(103, 4)
    assert torch.allclose(correlation(x.split(10)), x.double().T @ x.double()/103)
    with pytest.raises(ValueError, match='there is none'): correlation([])
