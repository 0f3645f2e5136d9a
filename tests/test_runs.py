"The reader of run folders."
from pathlib import Path

import pytest
import torch

from sae_ft.runs import check_folder, load_run, read_runs
from sae_ft.settings import Config
from tiny_runs import one_line

def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path/'letter.txt').write_text('dear')
    with pytest.raises(ValueError) as error: check_folder(Config(out_dir=str(tmp_path)))
    assert 'not the folder of a run' in one_line(error)
    assert [o.name for o in tmp_path.iterdir()] == ['letter.txt']

def test_a_folder_that_is_no_run_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError) as error: load_run(tmp_path)
    assert 'config.json' in one_line(error)

def test_answers_are_kept_and_remake_the_results(done):
    df = done.predictions
    assert set(df) == {'split', 'label', 'drawing', 'zero_shot', 'tuned', 'average'}
    for name, results in dict(zero_shot=done.results['before'], tuned=done.results['after']).items():
        right = (df[name] == df.label).groupby(df.split).mean()
        accuracy = {k: o['value'] for k, o in results.items() if o['metric'] == 'accuracy'}
        assert all(right[k] == pytest.approx(v, abs=1e-6) for k, v in accuracy.items())

def test_a_file_in_place_of_a_folder_is_left_alone(tmp_path):
    (tmp_path/'file').write_text('dear')
    cfg = Config(out_dir=str(tmp_path/'file'))
    with pytest.raises(ValueError, match='not the folder of a run'): check_folder(cfg)

def test_each_load_gives_a_classifier_of_its_own(done):
    run = load_run(done.folder)
    other = run.load_classifier()
    with torch.no_grad(): other.head.bias.fill_(7.)
    assert other is not run.classifier and not torch.equal(run.classifier.head.bias, other.head.bias)
    assert run.classifier is run.classifier

def test_runs_are_read_by_their_settings():
    results = Path(__file__).resolve().parent.parent/'nbs'/'results'
    found = read_runs(results/'main', seed=3)
    assert found and {o.config.seed for o in found} == {3}
    assert [o.folder for o in found] == sorted(o.folder for o in found)
