"What fine-tuning did to the features: tables, studies of runs, galleries."
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from sae_ft.experiment import run
from sae_ft.features import (
    RANKINGS, changed, compare, feature_table, gallery, missing, ranked, strengths, study_features)
from sae_ft.runs import load_run

# --- tables

def test_tables_against_loops():
    g = torch.Generator().manual_seed(0)
    s0, s = (torch.rand(40, 6, generator=g)*(torch.rand(40, 6, generator=g) < .3) for _ in range(2))
    t = feature_table(s0, s)
    for i in range(6):
        a, b = s0[:, i].tolist(), s[:, i].tolist()
        on = [v for v in a if v]
        assert t.freq_before[i] == pytest.approx(len(on)/40)
        assert t.mean_before[i] == pytest.approx(sum(on)/len(on))
        assert t.added[i] == pytest.approx(sum(not x and bool(y) for x, y in zip(a, b))/40)
        assert t.removed[i] == pytest.approx(sum(bool(x) and not y for x, y in zip(a, b))/40)
        kept = [(x, y) for x, y in zip(a, b) if x and y]
        assert t.kept[i] == pytest.approx(len(kept)/40)
        assert t.ratio[i] == pytest.approx(sum(y for _, y in kept)/sum(x for x, _ in kept), rel=1e-5)
    assert list(feature_table(s, s0).added) == list(t.removed)          # the other way round
    same = changed(feature_table(s, s))
    assert same.pop('strength') == 1 and set(same.values()) == {0}
    for how in RANKINGS: assert ranked(t, how, 6).score.is_monotonic_decreasing

def test_strengths_are_compared_where_a_feature_is_on_before_and_after():
    "Lost where strongest; doubled; halved and added; never kept."
    s0 = torch.tensor([[9., 1, 1, 0], [1, 1, 4, 0], [0, 2, 0, 1]])
    s = torch.tensor([[0., 2, .5, 1], [1, 2, 2, 1], [0, 4, 3, 0]])
    t = feature_table(s0, s)
    assert t.ratio[:3].tolist() == [1, 2, .5] and np.isnan(t.ratio[3])
    assert strengths(t, .5).index.tolist() == [1, 2]
    assert (ranked(t, 'strengthened').index[0], ranked(t, 'weakened').index[0]) == (1, 2)
    assert ranked(t, 'weakened').score.tolist()[1:3] == [0, 0]
    n = changed(t)
    assert (n['strengthened'], n['weakened'], n['strength']) == (1, 1, 1)
    nothing = changed(feature_table(s0, 0*s))
    assert np.isnan(nothing['strength'])   # nothing kept: no strength

def test_signed_codes_count_as_on():
    assert feature_table(torch.tensor([[-1.]]), torch.tensor([[-2.]])).ratio[0] == 2
    assert feature_table(torch.tensor([[-1.]]), torch.tensor([[0.]])).removed[0] == 1

def test_classes_of_a_feature_add_up(study):
    split = next(iter(study.before))
    t = study.classes(split, 0)
    assert t.pictures.sum() == len(study.labels[split])
    on = (study.after[split].s[:, 0] != 0).sum().item()
    assert (t.pictures*t.freq_after).sum() == pytest.approx(on)

# --- studies

def test_the_ends_of_the_average_are_the_two_models(tiny_run, study):
    zero, one = (study_features(tiny_run[1], start=study, alpha=a, progress=False) for a in (0., 1.))
    for k in study.before:
        assert torch.allclose(zero.after[k].z, study.before[k].z, atol=1e-5)
        assert torch.allclose(one.after[k].z, study.after[k].z, atol=1e-5)
    assert changed(zero.table(k))['per_picture_added'] == 0

def test_an_average_leaves_the_run_its_tuned_model(tiny_run, study):
    "One run, looked at half-way first and as it is then: the second study is of the tuned model."
    o = load_run(tiny_run[1])
    half = study_features(o, start=study, alpha=.5, progress=False)
    tuned = study_features(o, start=study, progress=False)
    assert tuned.models[1] is not half.models[1]
    for k in study.before:
        assert torch.equal(tuned.after[k].answer, study.after[k].answer)
        assert torch.equal(tuned.after[k].z, study.after[k].z)
        assert not torch.equal(half.after[k].z, study.after[k].z)

def test_accuracy_is_that_of_the_record(tiny_run, study):
    t, record = compare([study]).set_index('split'), load_run(tiny_run[1]).results
    for k in t.index:
        assert t.accuracy[k] == pytest.approx(record['after'][k]['value'], abs=1e-6)
        assert t.accuracy_before[k] == pytest.approx(record['before'][k]['value'], abs=1e-6)

def test_other_pictures_are_not_compared(tiny_run, study):
    cfg = tiny_run[0]
    other = run(replace(cfg, limit=9, out_dir=cfg.out_dir + '2'), progress=False)
    with pytest.raises(ValueError, match='differ in limit'):
        study_features(other, start=study, progress=False)

@pytest.mark.parametrize('call,need', [
    (lambda o: study_features(o.run, ['nothing'], progress=False), "unknown split 'nothing': known are "),
    (lambda o: gallery(o, [10**6], 'test'), 'there is no feature 1000000'),
    (lambda o: gallery(o, [0], 'nothing'), "unknown split 'nothing'"),
    (lambda o: missing(o, 'test', 'nothing'), "unknown split 'nothing'"),
    (lambda o: ranked(o.table('test'), 'x'), "unknown ranking 'x'")])
def test_bad_input_gets_a_sentence(study, call, need):
    with pytest.raises(ValueError, match=re.escape(need)) as e: call(study)
    assert '\n' not in str(e.value)

def test_html_of_a_gallery_is_escaped(study):
    html = gallery(study, [0, 1, 2], next(iter(study.before))).data
    assert '<script' not in html and 'onerror="' not in html
