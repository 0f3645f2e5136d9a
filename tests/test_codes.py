"Codes before and after: the sparse form against the dense one."
import pytest
import torch
from hypothesis import given, settings, strategies as st

from sae_ft.codes import Codes, SparseCodes, codes_of
from sae_ft.losses_sae import AddRemove, Preservation, Residual
from sae_ft.sae import TopKSAE
from sae_ft.sae_kinds import SAES

def made(d=12, expansion=4, k=3, dtype=torch.float64, **kw):
    "A frozen SAE with random weights, and embeddings that moved."
    sae = TopKSAE(d, expansion, k, **kw).to(dtype).requires_grad_(False)
    for p in sae.parameters(): p.normal_()
    z0 = torch.randn(7, d, dtype=dtype)
    return sae, (z0 + .3*torch.randn_like(z0)).requires_grad_(True), z0

@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.booleans(), st.booleans(), st.integers(1, 12))
def test_both_forms_are_one(seed, relu, bias, normalize, k):
    torch.manual_seed(seed)
    sae, z, z0 = made(k=k, relu=relu, bias=bias, normalize=normalize)
    dense, sparse = Codes(sae, z, z0), SparseCodes(sae, z, z0)
    assert torch.equal(dense.s, sparse.s) and torch.equal(dense.s0, sparse.s0) and not sparse.s0.requires_grad
    for name in ('change', 'switched_on'):
        a, b = getattr(dense, name)(), getattr(sparse, name)()
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)
        w = torch.randn_like(a)
        ga, gb = (torch.autograd.grad((w*o).sum(), z, retain_graph=True)[0] for o in (a, b))
        assert torch.allclose(ga, gb, rtol=1e-9, atol=1e-9)

def test_what_did_not_move_costs_exactly_nothing():
    torch.manual_seed(0)
    sae, z, _ = made(d=64, expansion=8, k=8, dtype=torch.float32)
    reg = Residual(sae) + Preservation(sae) + AddRemove(sae)
    assert all(o == 0 for o in reg.parts(z, z.detach()).values())

def test_a_price_of_both_terms_is_that_of_dense_codes():
    torch.manual_seed(1)
    sae, z, z0 = made(d=64, expansion=8, k=8)
    s, s0 = sae.encode(z), sae.encode(z0)
    du = sae.normalise(z) - sae.normalise(z0)
    want = (du - sae.decoder(s - s0)).pow(2).sum(1).mean() + (s.abs()*(s0 == 0)).sum(1).mean()
    got = (Residual(sae) + Preservation(sae))(z, z0)
    assert torch.allclose(got, want) and isinstance(codes_of(sae, z, z0), SparseCodes)
    ga, gb = (torch.autograd.grad(o, z)[0] for o in (got, want))
    assert torch.allclose(ga, gb, atol=1e-12)

@pytest.mark.parametrize('kind', sorted(SAES))
def test_only_what_says_so_goes_sparse(kind):
    sae = SAES[kind](16, 8, 4).requires_grad_(False)
    codes = codes_of(sae, torch.randn(3, 16), torch.randn(3, 16))
    assert isinstance(codes, SparseCodes) == sae.sparse
    assert codes.change().shape == (3, 16) and codes.switched_on().shape == (3,)

def test_an_sae_that_was_used_stays_as_it_was_in_memory_too():
    "A product with a matrix in another order rounds otherwise: a run that goes on would not be the same."
    torch.manual_seed(2)
    sae, z, z0 = made(d=32, expansion=8, k=4, dtype=torch.float32)
    before = {k: (v.data_ptr(), v.stride()) for k, v in sae.state_dict().items()}
    assert isinstance(codes_of(sae, z, z0), SparseCodes)
    Residual(sae)(z, z0)
    assert before == {k: (v.data_ptr(), v.stride()) for k, v in sae.state_dict().items()}

def test_a_dictionary_that_changes_is_seen():
    torch.manual_seed(3)
    sae, z, z0 = made()
    first = SparseCodes(sae, z, z0).change()
    with torch.no_grad(): sae.decoder.weight.mul_(2)
    assert torch.allclose(SparseCodes(sae, z, z0).change(), 2*first)
    sae.load_state_dict({k: v/2 if k == 'decoder.weight' else v for k, v in sae.state_dict().items()})
    assert torch.allclose(SparseCodes(sae, z, z0).change(), first)
