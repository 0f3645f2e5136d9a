"Settings as options, and the command's last words."
from dataclasses import fields

import pytest
from hypothesis import given, settings, strategies as st

from sae_ft.launch import main, settings_given, value_of
from sae_ft.settings import Config
from tiny_runs import TINY

@settings(max_examples=50, deadline=None)
@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_what_python_writes_is_read_again(value): assert value_of(str(value)) == value

@pytest.mark.parametrize('text', ['ft', 'a photo of a {}.|a {}.', '(', '1e', 'cat,dog', '/data/a b', "it's"])
def test_all_else_is_text(text): assert value_of(text) == text

def test_every_setting_is_an_option():
    cfg = Config(**TINY)
    words = [o for f in fields(Config) for o in (f'--{f.name}', str(getattr(cfg, f.name)))]
    assert settings_given(words) == cfg
    assert settings_given(['--batch-size', '8', '--wise_curve', '0.25,0.5']).wise_curve == (.25, .5)

def test_a_finished_run_is_said_to_be(done, capsys):
    words = [o for k, v in (TINY | dict(out_dir=str(done.folder))).items() for o in (f'--{k}', str(v))]
    assert main(words).folder == done.folder
    assert capsys.readouterr().out == f"'{done.folder}' is finished, by 1 process(es).\n"

@pytest.mark.parametrize('words, says', [
    (['--lam', '-1'], 'lam is -1'), (['--seeed', '1'], 'did you mean seed?'), (['--lam'], 'has no value'),
    (['lam', '1'], 'is no setting'), (['--global_batch', '100', '--batch_size', '64'], 'must be a multiple')])
def test_what_cannot_work_is_one_sentence(words, says):
    with pytest.raises(SystemExit) as error: main(words)
    assert says in str(error.value) and '\n' not in str(error.value)
