"A run from its settings to its folder, on parts of the embedded default."
import json, shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from sae_ft import experiment as experiment_module
from sae_ft import embeddings, frozen, runs, screening
from sae_ft.clip import Classifier
from sae_ft.drift import with_drift
from sae_ft.drift_measures import measure_drift
from sae_ft.embeddings import room_for
from sae_ft.evaluation import embed_splits
from sae_ft.experiment import Experiment, Replay, epoch_drift, experiment, run, threads_of
from sae_ft.methods import METHODS
from sae_ft.plumbing.blocks import Blocks
from sae_ft.plumbing.cache import Cache
from sae_ft.plumbing.files import digest, read_tensors
from sae_ft.runs import is_finished, load_run
from sae_ft.sae import TopKSAE
from sae_ft.settings import Config
from sae_ft.sweep import sweep
from tiny_runs import TINY, one_line

FILES = ['config.json', 'metrics.jsonl', 'model.safetensors', 'predictions.parquet', 'sae.safetensors']

def test_a_run_leaves_five_files_and_reads_back(done):
    assert sorted(o.name for o in done.folder.iterdir()) == FILES
    assert is_finished(done.folder) and done.config == Config(**TINY, out_dir=str(done.folder))
    provenance = done.provenance
    assert provenance['versions']['torch'] and provenance['hardware']['cores']
    assert provenance['sizes']['train'] == 64 and provenance['seed'] == 0
    assert {o['event'] for o in done.metrics} == {'sae', 'step', 'epoch', 'drift', 'average', 'end'}
    step = done.of('step')[0]
    assert {'lr', 'grad_norm', 'loss', 'ce'} < set(step)
    assert len(done.of('epoch')) == 1 and 0 <= done.of('epoch')[0]['val_accuracy'] <= 1
    assert all(o['metric'] and o['n'] for o in done.results['after'].values())
    assert done.sae.k == 8 and len(done.classifier.head.weight) == provenance['sizes']['classes']

def test_a_run_repeats(done, tmp_path):
    again = run(replace(done.config, out_dir=str(tmp_path/'again')), progress=False)
    assert again.results['after'] == done.results['after'] and again.of('step') == done.of('step')
    old, new = done.classifier.state_dict(), again.classifier.state_dict()
    assert all(torch.equal(v, old[k]) for k, v in new.items())

def record(run): return [{k: v for k, v in o.items() if k not in ('seconds', 'took')} for o in run.metrics]

def same(a, b):
    "Whether two runs have the same files and record, to the last bit, in all but the time they took."
    for o in ('model.safetensors', 'sae.safetensors'):
        assert digest(*read_tensors(a.folder/o)) == digest(*read_tensors(b.folder/o)), o
    assert record(a) == record(b) and a.predictions.equals(b.predictions)
    assert {o.name for o in a.folder.iterdir()} == {o.name for o in b.folder.iterdir()}

def refuse(*_, **__): raise AssertionError('this was to be read, not made again')

def test_a_run_that_reads_what_another_left_is_the_run_that_computes(done, tmp_path, monkeypatch):
    def made(name, **other):
        where = dict(cache=str(tmp_path/'cache'), out_dir=str(tmp_path/name))
        return run(replace(done.config, **where, **other), progress=False)
    same(made('leaves'), done)
    kinds = {o.name.split('-')[0] for _, _, o in Cache(tmp_path/'cache').entries()}
    assert kinds == {'screened', 'embeddings', 'sae', 'z0'}
    monkeypatch.setattr(experiment_module, 'train_sae', refuse)
    monkeypatch.setattr(screening, '_examine', refuse)
    monkeypatch.setattr(Experiment, 'embed', lambda self, name, *args, was=Experiment.embed, **kw: (
        was(self, name, *args, **kw) if name == 'tuned' else refuse()))
    same(made('reads'), done)
    made('other', lam=3., method='l2', lr=1e-3)
    monkeypatch.undo()
    for _, _, file in Cache(tmp_path/'cache').entries(): file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match='It is made again'): same(made('damaged'), done)

def test_a_kept_sae_is_shown_once(done, tmp_path):
    shares, shown = replace(done.config, cache=str(tmp_path/'cache')), []
    for name in ('a', 'b'):
        exp = experiment(replace(shares, out_dir=str(tmp_path/name)), progress=False)
        exp.fit_sae(on_epoch=lambda history: shown.append(len(history)))
        exp.lock.release(force=True)
    assert shown == [1, 2, 3, 3]

# --- training embeddings that stay on disk

@pytest.fixture
def small(tiny, pictures, tmp_path):
    "Settings of a run of a second -> its settings with others."
    how = dict(TINY, model=f'local-dir:{tiny}', dataset=pictures, k=4, batch_size=10, save_every=0.)
    return lambda name, **other: Config(**how, **other, out_dir=str(tmp_path/name))

def test_what_does_not_fit_into_memory_stays_on_disk(small, monkeypatch):
    "Here nothing fits. The SAE sees the same rows in another order; killed after it, the run goes on."
    fits = Experiment(small('fits'), progress=False)
    z, in_memory = fits.train_embeddings, fits.zero_shot()
    fits.lock.release(force=True)
    monkeypatch.setattr(frozen, 'IN_MEMORY', 4*z.numel() - 1)
    exp = Experiment(small('exp'), progress=False)
    blocks = exp.train_embeddings
    exp.lock.release(force=True)
    assert isinstance(blocks, Blocks) and torch.equal(blocks.take('z', torch.arange(len(z))), z)
    assert blocks.folder.parent == exp.folder/'checkpoint'

    whole = run(small('whole'), progress=False)
    assert whole.results['before'] == in_memory and whole.of('sae')[-1]['fvu'] < whole.of('sae')[0]['fvu']
    assert sorted(o.name for o in whole.folder.iterdir()) == FILES

    def stop(*args): raise KeyboardInterrupt
    cut = small('cut')
    with monkeypatch.context() as m:
        m.setattr(Experiment, 'tune', stop)
        with pytest.raises(KeyboardInterrupt): run(cut, progress=False)
    assert (cut.folder()/'checkpoint'/'train-blocks'/'000000000.safetensors').is_file()
    monkeypatch.setattr(Blocks, 'write', refuse)
    same(run(cut, progress=False), whole)

def test_embeddings_of_splits_that_do_not_fit_lie_in_files_without_a_name(small, monkeypatch):
    "The record is the same to the bit, and no file is left."
    def made(name): return run(small(name, wise_curve=[.5], keep_epochs=True), progress=False)
    memory, rooms = made('memory'), []
    def watched(*args):
        rooms.append(args)
        return room_for(*args)
    monkeypatch.setattr(embeddings, 'IN_MEMORY', 0)
    for module in (embeddings, experiment_module): monkeypatch.setattr(module, 'room_for', watched)
    disk = made('disk')
    same(disk, memory)
    assert len(rooms) > 3 and all(folder.is_relative_to(disk.folder) for *_, folder in rooms)
    assert [o.name for o in disk.folder.rglob('*')] == [o.name for o in memory.folder.rglob('*')]

@pytest.mark.parametrize('method', ['pca', 'conceptor'])
def test_a_price_is_fitted_to_embeddings_on_disk(method, small, monkeypatch):
    "All of them are in one window here, so it is the price of those in memory, but for rounding."
    memory = run(small('memory', method=method), progress=False)
    monkeypatch.setattr(frozen, 'IN_MEMORY', 0)
    disk = run(small('disk', method=method), progress=False)
    for a, b in zip(disk.of('step'), memory.of('step'), strict=True):
        assert (a.pop('event'), a) == (b.pop('event'), pytest.approx(b, rel=1e-3, abs=1e-6))

def test_a_saved_sae_can_be_used_again(done, tmp_path):
    sae = str(done.folder/'sae.safetensors')
    again = run(replace(done.config, sae=sae, out_dir=str(tmp_path/'again')), progress=False)
    assert not again.of('sae') and again.of('step') == done.of('step')

def begun_with(folder, hardware):
    "Settings of a run in that folder, whose config.json says so of the machine."
    (folder/'config.json').write_text(json.dumps(dict(hardware=hardware)))
    return Config(out_dir=str(folder))

def test_a_run_goes_on_with_the_threads_it_began_with(tmp_path):
    cfg = begun_with(tmp_path, dict(threads=3))
    assert threads_of(cfg) == 3 and threads_of(replace(cfg, threads=2)) == 2

ODD = None, 'x', {}, *(dict(threads=o) for o in (0, -1, 10**9, 2.5, 'two', None))

@pytest.mark.parametrize('hardware', ODD, ids=str)
def test_threads_that_cannot_be_are_chosen_anew(hardware, tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    assert threads_of(begun_with(tmp_path, hardware)) == 7

def test_a_run_records_its_threads_and_leaves_the_process_as_it_was(done, tmp_path, monkeypatch):
    def stop(*args): raise KeyboardInterrupt
    before, cfg = torch.get_num_threads(), replace(done.config, threads=3, out_dir=str(tmp_path/'run'))
    monkeypatch.setattr(Experiment, 'zero_shot', stop)
    with pytest.raises(KeyboardInterrupt): run(cfg, progress=False)
    assert json.loads((tmp_path/'run'/'config.json').read_text())['hardware']['threads'] == 3
    assert torch.get_num_threads() == before != 3 and threads_of(replace(cfg, threads='auto')) == 3

@pytest.mark.parametrize('method', METHODS)
def test_every_method_runs(method, done, pictures, tmp_path):
    sae, out_dir = str(done.folder/'sae.safetensors'), str(tmp_path/'run')
    other = dict(method=method, dataset=pictures, batch_size=10, sae=sae, out_dir=out_dir)
    got = run(replace(done.config, **other), progress=False)
    assert is_finished(got.folder)
    if not METHODS[method].stages: assert got.results['before'] == got.results['after']
    stages = METHODS[method].stages
    assert len(got.of('epoch')) == len(stages) and bool(got.of('step')) == bool(stages)

def test_adapters_leave_plain_weights(done, pictures, tmp_path):
    sae, out_dir = str(done.folder/'sae.safetensors'), str(tmp_path/'run')
    other = dict(method='l2-sp', trainable='lora', rank=2, keep_epochs=True, dataset=pictures, batch_size=10)
    got = run(replace(done.config, **other, sae=sae, out_dir=out_dir), progress=False)
    plain, kept = got.classifier.state_dict(), load_file(got.folder/'epoch-1.safetensors')
    assert kept.keys() == plain.keys() and all(torch.equal(v, plain[k]) for k, v in kept.items())
    assert any(o['l2sp'] > 0 for o in got.of('step')) and got.config.trainable == 'lora'

def test_a_finished_run_is_not_overwritten_by_another(done):
    with pytest.raises(ValueError) as error: run(replace(done.config, lam=3.), progress=False)
    assert 'lam 1.0 there and 3.0 here' in one_line(error) and load_run(done.folder).config.lam == 1

def killed_at_its_end(done, folder):
    "What a run leaves that is killed between its last line and clearing up; its settings."
    shutil.copytree(done.folder, folder)
    (folder/'checkpoint').mkdir()
    (folder/'checkpoint'/'tune.safetensors').write_bytes(b'state')
    (folder/'.lock').touch()
    return replace(done.config, out_dir=str(folder))

def written(folder): return {o: ((folder/o).read_bytes(), (folder/o).stat().st_mtime_ns) for o in FILES}
def swept(cfg): return sweep([asdict(cfg)], progress=False)

@pytest.mark.parametrize('again', (run, experiment, swept))
def test_a_run_killed_at_its_very_end_is_cleared_up(again, done, tmp_path):
    cfg = killed_at_its_end(done, tmp_path/'run')
    before = written(cfg.folder())
    again(cfg)
    assert sorted(o.name for o in cfg.folder().iterdir()) == FILES and written(cfg.folder()) == before

@pytest.mark.parametrize('refusal', (PermissionError('read-only'), ValueError('another process is at work')))
def test_a_finished_run_that_cannot_be_cleared_up_is_read(refusal, done, tmp_path, monkeypatch):
    def refuse(folder): raise refusal
    monkeypatch.setattr(runs, 'lock', refuse)
    cfg = killed_at_its_end(done, tmp_path/'run')
    assert run(cfg).results == done.results and (tmp_path/'run'/'checkpoint').exists()

def test_a_run_that_was_cut_off_is_not_finished_and_starts_over(done, tmp_path):
    folder = tmp_path/'cut'
    folder.mkdir()
    (folder/'config.json').write_text((done.folder/'config.json').read_text())
    lines = [json.dumps(o) for o in done.metrics[:-1]]
    (folder/'metrics.jsonl').write_text('\n'.join(lines) + '\n{"event": "en')
    assert not is_finished(folder) and load_run(folder).metrics == done.metrics[:-1]
    with pytest.raises(ValueError) as error: load_run(folder).results
    one_line(error)
    got = run(replace(done.config, out_dir=str(folder)), progress=False)
    assert is_finished(folder) and len(got.metrics) == len(done.metrics)

IMPOSSIBLE = [
    (dict(k=10**6), 'larger than the dictionary'),
    (dict(model='ViT-B16', pretrained='openai'), 'did you mean'),
    (dict(dataset='/nowhere/pictures'), '/nowhere/pictures'), (dict(class_names='cat,dog'), '2 class names'),
    (dict(templates='a photo'), 'templates is')]

@pytest.mark.parametrize('wrong, says', IMPOSSIBLE, ids=str)
def test_input_that_cannot_work_leaves_nothing(wrong, says, tmp_path):
    cfg = Config(**{**TINY, **wrong}, out_dir=str(tmp_path/'run'))
    with pytest.raises((ValueError, FileNotFoundError)) as error: run(cfg, progress=False)
    assert says in one_line(error) and list(tmp_path.iterdir()) == []

def test_a_saved_sae_that_does_not_fit_is_said_so(tmp_path):
    TopKSAE(7, 2, 1).save(tmp_path/'other.safetensors')
    cfg = Config(**TINY, sae=str(tmp_path/'other.safetensors'), out_dir=str(tmp_path/'run'))
    with pytest.raises(ValueError) as error: run(cfg, progress=False)
    assert 'length 7' in one_line(error) and not (tmp_path/'run').exists()

def test_a_run_records_drift_averages_and_epochs_without_a_notebook(done, tmp_path):
    sae = str(done.folder/'sae.safetensors')
    other = dict(epochs=2, keep_epochs=True, wise_curve='0,0.5,1', sae=sae, out_dir=str(tmp_path/'run'))
    got = run(replace(done.config, **other), progress=False)
    before, after = got.results['before'], got.results['after']
    assert [o['event'] for o in got.metrics if o['event'] not in ('step', 'epoch')] == [
        'drift', 'average', 'wise', 'wise', 'wise', 'epoch_drift', 'epoch_drift', 'end']
    start, half, end = got.of('wise')
    assert [o['alpha'] for o in (start, half, end)] == [0, .5, 1]
    assert start['splits'] == before and end['splits'] == after and set(half['splits']) == set(after)
    assert set(got.of('average')[0]['splits']) == set(got.of('drift')[0]['splits']) == set(after)
    assert end['drift'] == got.of('drift')[0]['splits']
    assert {'average', 'wise_0', 'wise_0.5', 'wise_1'} < set(got.predictions) and set(got.epochs) == {1, 2}
    last = load_file(got.epochs[2])
    assert all(torch.equal(v, last[k]) for k, v in got.classifier.state_dict().items())
    line = got.of('epoch_drift')[-1]
    assert line['epoch'] == 2 and line['cka'] == pytest.approx(end['drift'][line['split']]['cka'], abs=1e-6)
    assert with_drift([got]) == [got]

def test_a_finished_run_is_shown_again_with_what_it_measured(done):
    shown = experiment(done.config, progress=False)
    assert isinstance(shown, Replay)
    assert shown.zero_shot() == done.results['before'] and shown.fit_sae().config == done.sae.config
    assert shown.tune() == done.results['after'] and shown.measure() == done.of('drift')[0]['splits']

# --- drift after every epoch

class Tower(nn.Linear):
    "An image tower as small as can be."
    preprocess_cfg = dict(size=4, mode='RGB', mean=(.5,)*3, std=(.5,)*3,
                          interpolation='bicubic', resize_mode='shortest', fill_color=0)
    def forward(self, x): return super().forward(x.flatten(1))

def test_epoch_drift_is_the_drift_of_each_file_and_leaves_no_trace(tmp_path):
    torch.manual_seed(0)
    model, sae = Classifier(Tower(48, 6), torch.eye(6)), TopKSAE(6, k=2)
    pixels = np.random.default_rng(0).integers(0, 255, (20, 4, 4, 3), dtype=np.uint8)
    data = Dataset.from_dict(dict(image=[Image.fromarray(o) for o in pixels], label=[0]*20))
    cfg = Config(precision='fp32', device='cpu')
    def embedded(): return embed_splits(model, dict(a=data), cfg, progress=False)['a'][0]
    theta = {k: v.clone() for k, v in model.state_dict().items()}
    z0 = embedded()
    other = dict(theta, **{'visual.weight': torch.randn(6, 48)})
    files = {10: tmp_path/'epoch-10.safetensors', 2: tmp_path/'epoch-2.safetensors'}
    save_file(theta, files[2])
    save_file(other, files[10])
    still, moved = epoch_drift(files, model, sae, data, z0, cfg)
    assert (still.pop('epoch'), moved.pop('epoch')) == (2, 10)
    assert still == pytest.approx(measure_drift(sae, z0, z0))
    model.load_state_dict(other)
    assert moved == pytest.approx(measure_drift(sae, z0, embedded()))
    with pytest.raises(FileNotFoundError): epoch_drift({1: tmp_path/'none'}, model, sae, data, z0, cfg)
    assert all(torch.equal(v, other[k]) for k, v in model.state_dict().items())

def test_what_a_run_ignores_is_said_once_and_only_where_somebody_looks(done, tmp_path, capsys):
    sae = str(done.folder/'sae.safetensors')
    cfg = replace(done.config, method='zero-shot', sae=sae, k=5, lr=.1, out_dir=str(tmp_path/'run'))
    run(cfg, progress=False)
    assert 'Note' not in capsys.readouterr().out
    Experiment(replace(cfg, out_dir=str(tmp_path/'other')), progress=True).lock.release()
    notes = [o for o in capsys.readouterr().out.splitlines() if o.startswith('Note: ')]
    assert any(o.startswith("Note: lr (0.1)") and 'trains nothing' in o for o in notes)
    assert 'Note: k (5): not used, since the given SAE has 8.' in notes
