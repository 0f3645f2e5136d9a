"The Top-k SAE against plain loops in float64, the register of kinds, and files."
import json, math, subprocess, sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sae_ft.sae import SAE, TopKSAE, aux_loss, fvu, kind_of, project_gradient
from sae_ft.sae_kinds import JumpReLUSAE, ReLUSAE
from tiny_saes import IMPOSSIBLE, loop_decode, random_sae

# --- the formula

def loop_encode(sae, z):
    "s for one z (a list), by hand."
    W, b = sae.encoder.weight.tolist(), sae.b_pre.tolist()
    length = math.sqrt(sum(v*v for v in z)) if sae.normalize else 1.
    pre = [sum(w*(v/length - c) for w, v, c in zip(row, z, b)) for row in W]
    if sae.relu: pre = [max(v, 0.) for v in pre]
    top = sorted(range(len(pre)), key=lambda i: -pre[i])[:sae.k]
    return [v if i in top else 0. for i, v in enumerate(pre)]

@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('relu', [True, False])
def test_encode_and_decode_are_the_formula(normalize, relu):
    sae = random_sae(normalize=normalize, relu=relu, k=10)
    z = 3*torch.randn(20, 6, dtype=torch.float64)
    s = torch.tensor([loop_encode(sae, row) for row in z.tolist()], dtype=torch.float64)
    u_hat = torch.tensor([loop_decode(sae, row) for row in s.tolist()], dtype=torch.float64)
    assert torch.allclose(sae.encode(z), s, atol=1e-6, rtol=0)
    assert torch.allclose(sae(z), u_hat, atol=1e-6, rtol=0)
    assert (s < 0).any().item() == (not relu)

def test_no_more_than_k_and_fewer_when_relu_cuts():
    sae = random_sae(expansion=4, k=24)
    s = sae.encode(torch.randn(50, 6, dtype=torch.float64))
    assert (s >= 0).all() and ((s > 0).sum(1) < 24).all()

def test_normalisation_is_part_of_encode():
    sae, z = random_sae(), torch.randn(9, 6, dtype=torch.float64)
    assert torch.allclose(sae.encode(z), sae.encode(50*z))
    assert torch.allclose(sae.normalise(z).norm(dim=1), torch.ones(9, dtype=torch.float64))
    raw = random_sae(normalize=False)
    assert not torch.allclose(raw.encode(z), raw.encode(50*z)) and torch.equal(raw.normalise(z), z)

def test_a_zero_embedding_gives_finite_codes_and_gradients():
    z = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    random_sae()(z).sum().backward()
    assert z.grad.isfinite().all()

@pytest.mark.parametrize('normalize', [True, False])
def test_gradcheck(normalize):
    sae, z = random_sae(normalize=normalize), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sae, z)

@pytest.mark.parametrize('kw, words', IMPOSSIBLE)
def test_what_cannot_be(kw, words):
    with pytest.raises(ValueError, match=words): TopKSAE(6, **kw)

def test_the_base_has_no_activation():
    with pytest.raises(NotImplementedError, match='a kind of SAE defines `act`'):
        SAE(6).encode(torch.randn(2, 6))

# --- fvu, and what training needs of it

def test_fvu_is_the_formula_and_the_mean_scores_one():
    torch.manual_seed(0)
    x, y = torch.randn(2, 30, 5, dtype=torch.float64) + 4
    rows, guess = x.tolist(), y.tolist()
    mean = [sum(r[j] for r in rows)/30 for j in range(5)]
    err = sum((a - b)**2 for r, g in zip(rows, guess) for a, b in zip(r, g))
    around_mean = sum((a - m)**2 for r in rows for a, m in zip(r, mean))
    around_zero = sum(a*a for r in rows for a in r)
    assert fvu(x, y).item() == pytest.approx(err/around_mean, rel=1e-6)
    assert fvu(x, y, 'zero').item() == pytest.approx(err/around_zero, rel=1e-6)
    assert fvu(x, x.mean(0).expand(30, 5)).item() == 1
    assert fvu(x, 0*x, 'zero').item() == 1 and fvu(x, x).item() == 0

def test_fvu_refuses():
    with pytest.raises(ValueError, match='equal shapes'): fvu(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(ValueError, match="unknown baseline 'median'"):
        fvu(torch.zeros(3, 2), torch.zeros(3, 2), 'median')

def test_projected_gradient_is_tangent():
    sae = TopKSAE(6).double()
    sae.unit_columns()
    sae(torch.randn(8, 6, dtype=torch.float64)).pow(2).sum().backward()
    project_gradient(sae)
    assert (sae.decoder.weight*sae.decoder.weight.grad).sum(0).abs().max() < 1e-12

def test_auxk_reaches_dead_features_only():
    sae = TopKSAE(6, expansion=2, k=1)
    u = sae.normalise(torch.randn(32, 6))
    dead = torch.arange(12) < 5
    p = sae.pre(u)
    aux_loss(sae, p, u - sae.decode(sae.topk(p)), dead).backward()
    assert (sae.encoder.weight.grad[dead] != 0).any() and (sae.encoder.weight.grad[~dead] == 0).all()
    assert (sae.decoder.weight.grad[:, ~dead] == 0).all()

# --- the register of kinds

@pytest.fixture
def register(monkeypatch):
    "A copy of the register, thrown away afterwards."
    monkeypatch.setattr(SAE, 'classes', dict(SAE.classes))
    return SAE.classes

def defined(name, module):
    "A class of SAEs, as if it were defined in a module."
    return type(name, (SAE,), dict(__module__=module, __qualname__=name))

def test_a_class_registers_itself(register):
    mine = defined('MySAE', 'a.module')
    assert SAE.classes['MySAE'] is mine

def test_a_class_may_be_defined_again_but_not_by_another_module(register):
    defined('MySAE', 'a.module')
    again = defined('MySAE', 'a.module')
    assert SAE.classes['MySAE'] is again
    for module in 'another.module', '__main__':
        with pytest.raises(ValueError, match="there is a kind of SAE 'MySAE' already, in a.module"):
            defined('MySAE', module)
    assert SAE.classes['MySAE'] is again

def test_a_class_of_a_notebook_gives_way_to_a_module(register):
    defined('MySAE', '__main__')
    again = defined('MySAE', '__main__')
    assert SAE.classes['MySAE'] is again
    theirs = defined('MySAE', 'a.module')
    assert SAE.classes['MySAE'] is theirs

def test_a_library_kind_is_not_replaced(register):
    with pytest.raises(ValueError, match="'TopKSAE' already, in sae_ft.sae"): defined('TopKSAE', '__main__')
    assert SAE.classes['TopKSAE'] is TopKSAE

ASK = """
import sys
from sae_ft.sae import SAE, TopKSAE
assert 'sae_ft.sae_kinds' not in sys.modules and list(SAE.classes) == ['TopKSAE']
try: TopKSAE.load({path!r})
except ValueError as e: print(e)
sae = SAE.load({path!r})
print(type(sae).__module__, type(sae).__name__, sae.config)
"""

def test_a_fresh_process_reads_a_kind_that_it_has_not_imported(tmp_path):
    sae = JumpReLUSAE(6, k=2)
    sae.save(path := tmp_path/'jump.safetensors')
    ask = [sys.executable, '-c', ASK.format(path=str(path))]
    said = subprocess.run(ask, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert said.returncode == 0, said.stderr
    refused, read = said.stdout.splitlines()
    assert refused.endswith('holds a JumpReLUSAE, not a TopKSAE: read it with SAE.load.')
    assert read == f'sae_ft.sae_kinds JumpReLUSAE {sae.config}'

@pytest.mark.parametrize('name', ['NoSAE', 'SAE', '', None, ['TopKSAE']])
def test_a_name_that_is_none(name):
    with pytest.raises(ValueError, match="without an SAE's configuration"):
        kind_of(name, dict(d=6, k=2), 'file')

# --- files

def test_save_and_load(tmp_path):
    sae = TopKSAE(6, expansion=1.5, k=2, normalize=False, relu=False)
    sae.b_pre.data.normal_()
    sae.save(tmp_path/'new'/'sae.safetensors')
    back = TopKSAE.load(tmp_path/'new'/'sae.safetensors')
    z = torch.randn(30, 6)
    config = dict(d=6, expansion=1.5, k=2, normalize=False, bias=False, relu=False)
    assert back.config == sae.config == config
    assert torch.equal(back(z), sae(z))
    assert [p.name for p in (tmp_path/'new').iterdir()] == ['sae.safetensors']

def test_a_file_of_another_kind_is_refused_by_name(tmp_path):
    ReLUSAE(6, k=2).save(tmp_path/'s')
    with pytest.raises(ValueError, match='holds a ReLUSAE, not a TopKSAE'): TopKSAE.load(tmp_path/'s')
    assert type(ReLUSAE.load(tmp_path/'s')) is ReLUSAE

def test_a_file_from_before_there_were_kinds(tmp_path):
    sae = TopKSAE(6, k=2)
    config = '{"d": 6, "expansion": 4.0, "k": 2, "normalize": true, "relu": true}'
    save_file(sae.state_dict(), tmp_path/'s', metadata=dict(format='sae_ft.TopKSAE', config=config))
    assert SAE.load(tmp_path/'s').config == sae.config

@pytest.mark.parametrize('d, n', [(3, 7), (7, 10), (512, 2048), (49, 147)])
def test_any_dictionary_size_survives(tmp_path, d, n):
    TopKSAE(d, n/d, k=2).save(tmp_path/'s')
    assert TopKSAE.load(tmp_path/'s').n == n

def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path, sae = tmp_path/'sae.safetensors', TopKSAE(6)
    sae.save(path)
    before = path.read_bytes()
    def full(*args): raise OSError('disk full')
    monkeypatch.setattr('sae_ft.plumbing.files.os.replace', full)
    with pytest.raises(OSError): TopKSAE(6).save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ['sae.safetensors']

def broken(tmp_path, change):
    "An SAE file whose tensors went through `change`."
    sae = TopKSAE(6, k=2)
    tensors = {k: v.clone() for k, v in sae.state_dict().items()}
    change(tensors)
    save_file(tensors, tmp_path/'s', metadata=dict(format='sae_ft.TopKSAE', config=json.dumps(sae.config)))
    return tmp_path/'s'

@pytest.mark.parametrize('change, words', [
    (lambda t: t.pop('b_pre'), "lacks the SAE's tensor 'b_pre'"),
    (lambda t: t.update(extra=torch.zeros(1)), "holds a tensor 'extra'"),
    (lambda t: t.update({'encoder.weight': torch.zeros(5, 6)}),
     r"'encoder.weight' in .* has shape \(5, 6\), and the SAE needs \(24, 6\)")])
def test_load_names_the_first_misfit(tmp_path, change, words):
    with pytest.raises(ValueError, match=words) as e: TopKSAE.load(broken(tmp_path, change))
    assert str(e.value).count('\n') == 0

def test_load_refuses_other_files(tmp_path):
    def refused(name, words, error=ValueError):
        with pytest.raises(error, match=words): TopKSAE.load(tmp_path/name)

    refused('none', 'there is no SAE file', FileNotFoundError)
    (tmp_path/'words').write_text('not tensors at all')
    refused('words', 'is not a safetensors file')
    TopKSAE(6).save(tmp_path/'whole')
    (tmp_path/'cut').write_bytes((tmp_path/'whole').read_bytes()[:-20])
    refused('cut', 'is not a safetensors file, or a damaged one')
    save_file(dict(a=torch.zeros(1)), tmp_path/'plain')
    refused('plain', "without an SAE's configuration")
