"Settings, the loop and run folders, on parts of the embedded default."
import json
import math
import re
from dataclasses import fields, replace

import pytest
import torch
from PIL import Image
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file

from sae_ft.clip import load_clip, zero_shot
from sae_ft.suites import load_suite
from sae_ft.methods import METHODS
from sae_ft.experiment import Experiment, run
from sae_ft.runs import is_finished, load_run
from sae_ft.methods import wise
from sae_ft.settings import RULES, Config, alphas
from sae_ft.trainer import finetune, lr_at

TINY = dict(limit=64, epochs=1, batch_size=32, sae_epochs=3, lr=1e-4, precision='fp32', device='cpu', log_every=1)

def one_line(error) -> str:
    "The message, which must be one sentence on one line."
    text = str(error.value)
    assert '\n' not in text and 10 < len(text) < 400, text
    return text

# --- settings

WRONG = [
    (dict(lam=-1), 'lam is -1'), (dict(lam=math.nan), 'lam is nan'), (dict(lam='strong'), "lam is 'strong'"), (dict(lam=True), 'lam is True'),
    (dict(method='sea-ft'), 'sae-ft'), (dict(lr=0), 'lr is 0'), (dict(lr=math.inf), 'lr is inf'), (dict(epochs=-1), 'epochs is -1'),
    (dict(epochs=1.5), 'epochs is 1.5'), (dict(batch_size=0), 'batch_size is 0'), (dict(k=0), 'k is 0'), (dict(expansion=.5), 'expansion is 0.5'),
    (dict(seed='one'), "seed is 'one'"), (dict(seed=None), 'seed is None'), (dict(precision='fp16'), 'auto, fp32, bf16'), (dict(device='tpu'), "'tpu'"),
    (dict(warmup=2), 'warmup is 2'), (dict(wise_alpha=1.1), 'wise_alpha is 1.1'), (dict(wise_curve='0.5,2'), "wise_curve is '0.5,2'"), (dict(wise_curve='half'), 'numbers from 0 to 1'), (dict(keep_epochs='yes'), 'True or False'), (dict(sae_kind='deep'), 'topk'), (dict(limit=0), 'limit is 0'), (dict(on_bad_image='ignore'), 'refuse, skip'),
    (dict(templates='a {}.|a photo'), 'sentences with {}'), (dict(class_names=[]), 'class_names is []'), (dict(model=3), 'model is 3'), (dict(dataset=''), "dataset is ''"), (dict(sae='nowhere.safetensors'), 'no such file'), (dict(weight_decay=-.1), 'weight_decay is -0.1'),
]

@pytest.mark.parametrize('wrong, says', WRONG, ids=lambda o: str(o)[:40])
def test_a_wrong_setting_is_one_sentence_that_names_it(wrong, says):
    with pytest.raises(ValueError) as error: Config(**wrong).check()
    assert says in one_line(error)

def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError) as error: Config(method='qqq').check()
    assert "'qqq'" in one_line(error) and all(o in str(error.value) for o in METHODS)

def test_every_setting_has_a_rule_and_defaults_are_right():
    assert set(RULES) == {f.name for f in fields(Config)}
    assert Config().check() == Config()

def test_a_namespace_with_an_unknown_name_is_refused():
    with pytest.raises(ValueError) as error: Config.from_namespace(dict(lam=2, leraning_rate=1), set())
    assert 'leraning_rate' in one_line(error)
    assert Config.from_namespace(dict(lam=2, here_before=3, _i1='', In=[], fit=print), {'here_before'}) == Config(lam=2)

@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 10), st.integers(1, 300), st.floats(0, 1))
def test_the_learning_rate_rises_then_falls_and_stays_in_bounds(lr, total, warmup):
    lrs, w = [lr_at(t, total, lr, warmup) for t in range(total)], round(warmup*total)
    assert all(0 <= o <= lr*(1 + 1e-9) for o in lrs)
    assert lrs[:w] == sorted(lrs[:w]) and lrs[w:] == sorted(lrs[w:], reverse=True)

@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=8))
def test_wise_lies_between_its_ends(alpha, values):
    a = dict(w=torch.tensor(values), n=torch.tensor(3))
    b = dict(w=torch.tensor(values[::-1]), n=torch.tensor(5))
    low, high, mid = torch.minimum(a['w'], b['w']), torch.maximum(a['w'], b['w']), wise(a, b, alpha)['w']
    assert (mid >= low - 1e-4).all() and (mid <= high + 1e-4).all()
    assert torch.equal(wise(a, b, 0)['w'], a['w']) and torch.equal(wise(a, b, 1)['w'], b['w']) and wise(a, b, alpha)['n'] == 3

# --- runs

@pytest.fixture(scope='module')
def done(tmp_path_factory):
    "A tiny SAE-FT run."
    return run(Config(**TINY, out_dir=str(tmp_path_factory.mktemp('runs')/'first')), progress=False)

def test_a_run_leaves_five_files_and_reads_back(done):
    assert sorted(o.name for o in done.folder.iterdir()) == ['config.json', 'metrics.jsonl', 'model.safetensors', 'predictions.parquet', 'sae.safetensors']
    assert is_finished(done.folder) and done.config == Config(**TINY, out_dir=str(done.folder))
    assert done.provenance['versions']['torch'] and done.provenance['sizes']['train'] == 64 and done.provenance['hardware']['cores'] and done.provenance['seed'] == 0
    assert {o['event'] for o in done.metrics} == {'sae', 'step', 'epoch', 'end'}
    step = done.of('step')[0]
    assert {'lr', 'grad_norm', 'loss', 'ce'} < set(step) and len(done.of('epoch')) == 1 and 0 <= done.of('epoch')[0]['val_accuracy'] <= 1
    assert all(o['metric'] and o['n'] for o in done.results['after'].values())
    assert done.sae.k == 8 and len(done.classifier.head.weight) == done.provenance['sizes']['classes']

def test_a_run_repeats(done, tmp_path):
    again = run(replace(done.config, out_dir=str(tmp_path/'again')), progress=False)
    assert again.results['after'] == done.results['after'] and again.of('step') == done.of('step')
    assert all(torch.equal(v, done.classifier.state_dict()[k]) for k, v in again.classifier.state_dict().items())

def test_a_saved_sae_can_be_used_again(done, tmp_path):
    again = run(replace(done.config, sae=str(done.folder/'sae.safetensors'), out_dir=str(tmp_path/'again')), progress=False)
    assert not again.of('sae') and again.of('step') == done.of('step')

@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    "A folder with eight pictures of each of three classes."
    root = tmp_path_factory.mktemp('pictures')
    for c in ('cat', 'dog', 'tree'):
        (root/c).mkdir()
        for i in range(8): Image.effect_noise((20, 20), 40 + 10*i).convert('RGB').save(root/c/f'{i}.png')
    return str(root)

@pytest.mark.parametrize('method', METHODS)
def test_every_method_runs(method, done, pictures, tmp_path):
    got = run(replace(done.config, method=method, dataset=pictures, batch_size=10, sae=str(done.folder/'sae.safetensors'), out_dir=str(tmp_path/'run')), progress=False)
    assert is_finished(got.folder)
    if not METHODS[method].stages: assert got.results['before'] == got.results['after']
    assert len(got.of('epoch')) == len(METHODS[method].stages) and bool(got.of('step')) == bool(METHODS[method].stages)

def test_a_finished_run_is_not_overwritten_by_another(done):
    with pytest.raises(ValueError) as error: run(replace(done.config, lam=3.), progress=False)
    assert 'lam 1.0 there and 3.0 here' in one_line(error) and load_run(done.folder).config.lam == 1

def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path/'letter.txt').write_text('dear')
    with pytest.raises(ValueError) as error: Config(out_dir=str(tmp_path)).check().check_folder()
    assert 'not the folder of a run' in one_line(error) and [o.name for o in tmp_path.iterdir()] == ['letter.txt']

def test_a_run_that_was_cut_off_is_not_finished_and_starts_over(done, tmp_path):
    folder = tmp_path/'cut'
    folder.mkdir()
    (folder/'config.json').write_text((done.folder/'config.json').read_text())
    (folder/'metrics.jsonl').write_text('\n'.join(map(json.dumps, done.metrics[:-1])) + '\n{"event": "en')
    assert not is_finished(folder) and load_run(folder).metrics == done.metrics[:-1]
    with pytest.raises(ValueError) as error: load_run(folder).results
    one_line(error)
    got = run(replace(done.config, out_dir=str(folder)), progress=False)
    assert is_finished(folder) and len(got.metrics) == len(done.metrics)

def test_a_folder_that_is_no_run_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError) as error: load_run(tmp_path)
    assert 'config.json' in one_line(error)

@pytest.mark.parametrize('wrong, says', [
    (dict(k=10**6), 'larger than the dictionary'), (dict(model='ViT-B16', pretrained='openai'), 'did you mean'), (dict(dataset='/nowhere/pictures'), '/nowhere/pictures'),
    (dict(class_names='cat,dog'), '2 class names'), (dict(templates='a photo'), 'templates is')], ids=str)
def test_input_that_cannot_work_leaves_nothing(wrong, says, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)) as error: run(Config(**{**TINY, **wrong}, out_dir=str(tmp_path/'run')), progress=False)
    assert says in one_line(error) and list(tmp_path.iterdir()) == []

def test_a_saved_sae_that_does_not_fit_is_said_so(tmp_path):
    from sae_ft.sae import TopKSAE
    TopKSAE(7, 2, 1).save(tmp_path/'other.safetensors')
    with pytest.raises(ValueError) as error: run(Config(**TINY, sae=str(tmp_path/'other.safetensors'), out_dir=str(tmp_path/'run')), progress=False)
    assert 'length 7' in one_line(error) and not (tmp_path/'run').exists()

def test_answers_are_kept_and_remake_the_results(done):
    df = done.predictions
    assert set(df) == {'split', 'label', 'zero_shot', 'tuned'}
    for name, results in dict(zero_shot=done.results['before'], tuned=done.results['after']).items():
        right = (df[name] == df.label).groupby(df.split).mean()
        assert all(right[k] == pytest.approx(o['value'], abs=1e-6) for k, o in results.items() if o['metric'] == 'accuracy')

def test_epochs_and_averages_are_kept(done, tmp_path):
    exp = Experiment(replace(done.config, epochs=2, keep_epochs=True, wise_curve='0,0.5,1', sae=str(done.folder/'sae.safetensors'), out_dir=str(tmp_path/'run')), progress=False)
    exp.zero_shot(), exp.fit_sae(), exp.tune()
    path = {a: exp.judge(f'wise_{a:g}', z) for a, z in exp.wise_curve()}
    mean = exp.judge('average', exp.average())
    got = exp.save()
    assert path[0] == exp.before and path[1] == exp.after and set(got.epochs) == {1, 2}
    assert all(torch.equal(v, got.classifier.state_dict()[k]) for k, v in load_file(got.epochs[2]).items())
    assert {'average', 'wise_0.5'} < set(got.predictions) and set(mean) == set(exp.after)

@pytest.mark.parametrize('value, want', [(None, []), ('0.25, 1', [.25, 1]), (.5, [.5]), ([0, 1], [0, 1]), ('x', None), ('2', None), ('', None)], ids=str)
def test_alphas(value, want): assert alphas(value) == want

# --- the loop

def test_a_longer_training_of_the_same_pictures_fits_them_better():
    clip, suite = load_clip(), load_suite(limit=64)
    model = zero_shot(clip, suite.classnames, suite.templates)
    _, history = finetune(model, suite, cfg=Config(**{**TINY, 'epochs': 6, 'method': 'ft'}), progress=False)
    ce = [o['ce'] for o in history if o['event'] == 'step']
    assert sum(ce[-2:]) < .8*sum(ce[:2])

def test_batch_norm_keeps_its_statistics():
    clip, suite = load_clip(), load_suite(limit=32)
    model = zero_shot(clip, suite.classnames, suite.templates)
    stats = {k: v.clone() for k, v in model.state_dict().items() if re.search('running_|num_batches', k)}
    finetune(model, suite, cfg=Config(**TINY), progress=False)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in stats.items())
