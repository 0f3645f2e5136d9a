"""End to end: what version 0.2.0 wrote is read as before, and a run that it began is refused.

The files in files_0_2_0 were written by the last commit of that version: a tiny CLIP of random weights,
24 pictures, a finished run of them (SAE-FT, two epochs), the same run cut off in its second epoch, an SAE
of each kind with codes that it gave, and a store of embeddings in which a part is missing."""
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sae_ft.embeddings import embed_kept
from sae_ft.evaluation import evaluate
from sae_ft.experiment import Replay, experiment, run
from sae_ft.plumbing.store import Store
from sae_ft.runs import is_finished, load_run, suite_of
from sae_ft.sae import SAE
from sae_ft.sae_kinds import SAES

FILES = Path(__file__).resolve().parent/'files_0_2_0'

@pytest.fixture
def here(tmp_path, monkeypatch):
    "A copy of the files as the working folder: settings name the model and the pictures from there."
    shutil.copytree(FILES, tmp_path/'files')
    monkeypatch.chdir(tmp_path/'files')
    return tmp_path/'files'

def test_a_run_is_read_and_judged_as_before(here):
    old = load_run('run')
    assert is_finished('run') and old.config.method == 'sae-ft'
    assert old.provenance['versions']['sae_ft'] == '0.2.0'
    found = evaluate(old.classifier, suite_of(old.config, progress=False), old.config, progress=False)
    assert found == old.results['after'] and set(old.epochs) == {1, 2}
    last = load_file(old.epochs[2])
    assert all(torch.equal(v, last[k]) for k, v in old.classifier.state_dict().items())
    right = (old.predictions.tuned == old.predictions.label).mean()
    assert right == pytest.approx(old.results['after']['test']['value'], abs=1e-6)
    assert old.sae.k == 3 and len(old.of('sae')) == 4 and old.of('drift')[0]['splits'].keys() == {'test'}

def test_a_finished_run_is_shown_again(here):
    old = load_run('run')
    shown = experiment(old.config, progress=False)
    assert isinstance(shown, Replay)
    assert shown.zero_shot() == old.results['before'] and shown.fit_sae().config == old.sae.config
    assert shown.tune() == old.results['after'] and shown.measure() == old.of('drift')[0]['splits']

def contents(folder):
    return {o: o.read_bytes() for o in Path(folder).rglob('*') if o.is_file() and o.name != '.lock'}

def test_a_run_that_was_cut_off_is_gone_on_with_by_its_version_alone(here):
    begun, before = load_run('begun'), contents('begun')
    assert not is_finished('begun') and begun.metrics[-1]['event'] == 'step'
    sentence = r"'begun' was begun by sae_ft 0\.2\.0, and \S+ draws other crops or has other settings: go on"
    with pytest.raises(ValueError, match=sentence): run(begun.config, progress=False)
    assert contents('begun') == before

@pytest.mark.parametrize('kind', SAES)
def test_an_sae_gives_the_codes_that_it_gave(kind):
    codes = load_file(FILES/'codes.safetensors')
    sae = SAE.load(FILES/f'sae-{kind}.safetensors')
    assert torch.allclose(sae.encode(codes['z']), codes[kind], atol=1e-6) and (codes[kind] != 0).any()

def test_a_store_is_read_and_gone_on_with(here):
    encoded, data = [], [(torch.full((2,), float(i)), i) for i in range(10)]
    zs, ys = Store('store', dict(what='twice', pictures=10, batch_size=3)).read()
    assert [len(o) for o in zs] == [3, 3]  # up to the part that is missing
    def twice(x):
        encoded.extend(x[:, 0].tolist())
        return 2*x
    how = dict(batch_size=3, progress=False, precision='fp32', device='cpu')
    z, y = embed_kept(twice, data, 'store', dict(what='twice'), **how)
    assert z[:, 0].tolist() == [2.*i for i in range(10)] and y.tolist() == list(range(10))
    assert encoded == [6., 7., 8., 9.]
