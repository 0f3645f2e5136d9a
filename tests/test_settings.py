"Settings and their rules."
import math
from dataclasses import dataclass, fields

import pytest

from sae_ft.methods import METHODS
from sae_ft.settings import RULES, Config, advice, alphas, number_from, or_none, whole_from
from tiny_runs import one_line

WRONG = [
    (dict(lam=-1), 'lam is -1'), (dict(lam=math.nan), 'lam is nan'), (dict(lam='strong'), "lam is 'strong'"),
    (dict(lam=True), 'lam is True'), (dict(method='sea-ft'), 'sae-ft'), (dict(lr=0), 'lr is 0'),
    (dict(lr=math.inf), 'lr is inf'), (dict(epochs=-1), 'epochs is -1'), (dict(epochs=1.5), 'epochs is 1.5'),
    (dict(batch_size=0), 'batch_size is 0'), (dict(k=0), 'k is 0'), (dict(expansion=.5), 'expansion is 0.5'),
    (dict(seed='one'), "seed is 'one'"), (dict(seed=None), 'seed is None'),
    (dict(precision='fp16'), 'auto, fp32, bf16'), (dict(device='tpu'), "'tpu'"),
    (dict(warmup=-1), 'warmup is -1'), (dict(crop=1.2), 'crop is 1.2'), (dict(mu=-1), 'mu is -1'),
    (dict(preset='paper'), "unknown preset 'paper'"),
    (dict(wise_alpha=1.1), 'wise_alpha is 1.1'), (dict(wise_curve='0.5,2'), "wise_curve is '0.5,2'"),
    (dict(wise_curve='half'), 'numbers from 0 to 1'), (dict(keep_epochs='yes'), 'True or False'),
    (dict(sae_kind='deep'), 'topk'), (dict(limit=0), 'limit is 0'),
    (dict(on_bad_image='ignore'), 'refuse, skip'), (dict(templates='a {}.|a photo'), 'sentences with {}'),
    (dict(class_names=[]), 'class_names is []'), (dict(model=3), 'model is 3'),
    (dict(dataset=''), "dataset is ''"), (dict(sae='nowhere.safetensors'), 'no such file'),
    (dict(weight_decay=-.1), 'weight_decay is -0.1')]

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
    namespace = dict(lam=2, here_before=3, _i1='', In=[], fit=print)
    assert Config.from_namespace(namespace, {'here_before'}) == Config(lam=2)

ALPHAS = [
    (None, []), ('0.25, 1', [.25, 1]), (.5, [.5]), ([0, 1], [0, 1]), ('x', None), ('2', None), ('', None)]

@pytest.mark.parametrize('value, want', ALPHAS, ids=str)
def test_alphas(value, want): assert alphas(value) == want

def test_compiling_asks_for_a_compiler_before_anything_starts(monkeypatch):
    monkeypatch.setenv('CXX', '/no/such/compiler')
    with pytest.raises(ValueError, match=r'compile needs a C\+\+ compiler.*or leave compile at False'):
        Config(compile=True).check()
    assert Config().check() == Config()

def test_given_is_what_was_given():
    assert Config().given() == {} == Config(lam=1, lr=3e-4).given()
    assert Config(method='ldifs', k=9).given() == dict(method='ldifs', k=9)
    cfg = Config(model='ViT-B-32', pretrained='openai', lr=1e-5, epochs=3)
    assert cfg.given() == dict(model='ViT-B-32', pretrained='openai', epochs=3)
    assert Config(**Config(preset='flyp').given()) == Config(preset='flyp')

ADVICE = [
    (dict(), ''), (dict(model='ViT-B-16'), ''), (dict(model='local-dir:x', lr=1e-3), ''),
    (dict(method='ldifs'), ''),
    (dict(method='ft', lam=3), "lam (3): not used, since the method 'ft' has no price."),
    (dict(method='l2', mu=1., lam_feature=2.),
     "mu (1.0), lam_feature (2.0): not used, since the method 'l2' has no such terms."),
    (dict(method='ft', head_lr=.1), "head_lr (0.1): not used, since the method 'ft' trains no head first."),
    (dict(method='zero-shot', lr=.1, epochs=2),
     "lr (0.1), epochs (2): not used, since the method 'zero-shot' trains nothing."),
    (dict(sae=__file__, sae_epochs=5), 'sae_epochs (5): not used, since the SAE comes from a file.'),
    (dict(model='ViT-B-16', lr=1e-3), 'lr is 0.001, and 1e-05 is published for CLIPs such as ViT-B-16: '
                                      'so high a rate forgets much.')]

@pytest.mark.parametrize('given, says', ADVICE, ids=lambda o: str(o)[:40])
def test_settings_without_effect_and_high_rates_are_said(given, says):
    assert ' '.join(advice(Config(**given).check())) == says

def test_rows_with_a_feature_term_are_those_of_sae_ft():
    named = {k for k in METHODS if k.removeprefix('lp-').startswith('sae-ft')}
    assert {k for k, m in METHODS.items() if m.feature} == named
    assert all(m.regulariser for m in METHODS.values() if m.feature)

def test_a_subclass_has_rules_of_its_own():
    @dataclass
    class More(Config):
        turns: int = 1
        rules = RULES | dict(turns=or_none(whole_from(1)), lr=number_from(0, 1e-3))
    assert More(turns=None).check().turns is None and 'rules' not in {f.name for f in fields(More)}
    for wrong in (dict(turns=0), dict(turns=True), dict(lr=1e-2), dict(k=0)):
        name = next(iter(wrong))
        with pytest.raises(ValueError, match=f'^{name} is .*: it must be '): More(**wrong).check()
    assert Config(lr=1e-2).check()
