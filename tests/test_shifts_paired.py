"The paired bootstrap: against resampled rows, against known answers, and its sentences."
import time

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score

from fake_runs import METHODS, fake_run
from sae_ft.evaluation import METRICS, score
from sae_ft.runs import read_runs
from sae_ft.shifts import compared, kind_means, tidy
from sae_ft.shifts_paired import (RESAMPLED, accuracy_of, answers_of, bootstrap, draws, fair_wins,
                                  half_widths, macro_f1_of, paired, who_wins, worst_region_of)

def test_metrics_of_resamples_agree_with_sklearn_on_resampled_rows():
    rng = np.random.default_rng(0)
    label = rng.integers(6, size=50)
    answers = np.where(rng.random((2, 50)) < .6, label, rng.integers(8, size=(2, 50)))
    W = draws(50, 30, rng)
    accuracy, macro_f1 = accuracy_of(answers, label, W), macro_f1_of(answers, label, W)
    for r, a in enumerate(answers):
        for b, w in enumerate(W):
            rows = np.repeat(np.arange(50), w.astype(int))
            assert np.isclose(accuracy[r, b], (a[rows] == label[rows]).mean(), atol=1e-6)
            assert np.isclose(macro_f1[r, b], f1_score(label[rows], a[rows], average='macro'), atol=1e-6)

@pytest.mark.parametrize('metric', RESAMPLED)
def test_row_0_of_the_draws_is_the_metric_of_the_evaluation(metric):
    "Two formulas, one metric: with all weights 1 they are `score`, also where a side lacks a class."
    rng = np.random.default_rng(1)
    label = rng.integers(1, 9, size=80)  # class 0 has answers and no picture, class 9 has neither
    answers = np.where(rng.random((4, 80)) < .5, label, rng.integers(8, size=(4, 80)))
    want = [score(torch.tensor(a), torch.tensor(label), 10, metric) for a in answers]
    assert np.allclose(RESAMPLED[metric](answers, label, draws(80, 3, rng))[:, 0], want, atol=1e-6)
    assert set(RESAMPLED) == set(METRICS)

def test_the_worst_region_is_found_in_every_resample():
    "By hand: two of four pictures in Africa, of which one is right, until the draw takes the other twice."
    label, answers = np.zeros(5, int), np.array([[0, 1, 0, 0, 1]])
    region = np.array(['Africa', 'Africa', 'Asia', 'Asia', 'Other'])
    W = np.array([[1, 1, 1, 1, 1], [0, 2, 1, 1, 1], [2, 0, 1, 1, 1], [0, 0, 2, 2, 1]], dtype='float32')
    assert worst_region_of(answers, label, W, region).tolist() == [[.5, 0., 1., 1.]]

def test_draws_keep_their_number_and_begin_with_the_sample():
    W = draws(7, 500, np.random.default_rng(0))
    assert (W.sum(1) == 7).all() and (W[0] == 1).all() and abs(W[1:].mean(0) - 1).max() < .15

@pytest.mark.parametrize('stage, kinds', [('main', ('id', 'far', 'transfer')), ('wild', ('id', 'far'))])
def test_row_0_of_the_bootstrap_is_what_the_records_say(made_up, stage, kinds):
    runs = read_runs(made_up/stage)
    values, rows = bootstrap(answers_of(runs), runs[0].metrics[-1]['after'], kinds, B=3), compared(tidy(runs))
    for kind, v in values.items():
        want = kind_means(rows[rows.kind == kind]).groupby('method').value.mean()
        assert np.allclose(v.iloc[0], want[v.columns], atol=1e-6)

def frame(right, n=100):
    "Answers to n pictures, the first ones right."
    return pd.DataFrame(dict(split='line', label=0, answer=np.where(np.arange(n) < right, 0, 1)))

def test_both_levels_are_resampled():
    splits = dict(line=dict(kind='id', metric='accuracy'))
    ours = {('ours', s): frame(r) for s, r in enumerate([40, 60, 80])}
    def against(name, answers):
        table = paired(bootstrap(ours | {(name, s): answers(s) for s in range(3)}, splits, ('id',)), 'ours')
        return table['id'].loc[name]
    assert (against('copy', lambda s: ours['ours', s]) == 0).all()  # paired: what both share cancels
    never = against('never', lambda s: frame(0))
    assert np.isclose(never.difference, 60) and never['below 0'] == 0
    spread = (2/3*(20**2)/3 + 60*40/100)**.5  # of seeds (variance with 1/S), and of pictures
    assert abs((never.high - never.low)/(2*1.96*spread) - 1) < .25

def test_two_thousand_resamples_take_seconds(main):
    start = time.process_time()
    table = paired(bootstrap(answers_of(main), main[0].metrics[-1]['after'], ('id', 'far')))
    assert time.process_time() - start < 10
    assert set(table.index) == {'zero-shot', 'wise-ft', 'rep-avg', *METHODS} - {'sae-ft'}
    assert (table['far'].low <= table['far'].high).all() and table['far']['below 0'].between(0, 1).all()

def test_seeds_that_not_all_have_are_left_out_and_none_in_common_is_refused():
    splits = dict(line=dict(kind='id', metric='accuracy'))
    v = bootstrap({('a', 0): frame(50), ('a', 1): frame(90), ('b', 0): frame(40)}, splits, ('id',), B=5)
    assert list(v['id']) == ['a', 'b'] and np.allclose(v['id'].iloc[0], [.5, .4])
    with pytest.raises(ValueError, match='no seed in common'):
        bootstrap({('a', 0): frame(1), ('b', 1): frame(1)}, splits, ('id',))

def test_runs_judged_on_other_pictures_are_refused(tmp_path):
    runs = [fake_run(tmp_path/'a', 'ft'), fake_run(tmp_path/'b', 'l2', dataset='iconwild')]
    with pytest.raises(ValueError, match='other pictures'): answers_of(read_runs(tmp_path))
    (runs[1]/'predictions.parquet').unlink()
    with pytest.raises(FileNotFoundError, match='no predictions.parquet'): answers_of(read_runs(tmp_path))

def test_the_order_of_splits_does_not_matter(tmp_path):
    folders = [fake_run(tmp_path/f'{m}-{s}', m, s) for m in ('ft', 'l2') for s in (0, 1)]
    def far():
        runs = read_runs(tmp_path)
        return bootstrap(answers_of(runs), runs[0].metrics[-1]['after'], ('far',), B=4)['far']
    want, path = far(), folders[1]/'predictions.parquet'
    parts = [o for _, o in pd.read_parquet(path).groupby('split', sort=False)]
    pd.concat(parts[::-1]).to_parquet(path, index=False)
    assert far().equals(want)

def made(**rows):
    "A table of `paired` from (low, high) on ID and far."
    def part(i):
        def of(low, high): return {'difference': (low + high)/2, 'low': low, 'high': high, 'below 0': .5}
        return pd.DataFrame({m: of(*o[i]) for m, o in rows.items()}).T
    return pd.concat(dict(id=part(0), far=part(1)), axis=1)

def test_sentences_can_say_that_ours_loses():
    table = made(l2=((-1, 1), (-4, -2)), ft=((-3, -1), (1, 3)), lp=((1, 2), (-1, 1)))
    assert who_wins(table, 'far') == (
        'far: sae-ft beats 1 of 3: ft (+2.0 [+1.0, +3.0]); is behind 1 of 3: l2 (-3.0 [-4.0, -2.0]); '
        'undecided against 1 of 3: lp (+0.0 [-1.0, +1.0]).')
    assert fair_wins(table) == (
        'At equal or better in-distribution value (interval of the difference not below 0), sae-ft '
        'faces 2 of 3 baselines and beats 0 of these on the far mean, but not l2, lp. '
        'Clearly better than sae-ft in distribution: ft.')
    behind = made(l2=((0, 1), (-4, -2)))
    assert who_wins(behind, 'far') == 'far: sae-ft beats 0 of 1; is behind 1 of 1: l2 (-3.0 [-4.0, -2.0]).'
    assert fair_wins(made(l2=((0, 1), (2, 3)))).endswith(
        'beats 1 of these on the far mean. No baseline is clearly better than sae-ft in distribution.')

def test_pictures_of_one_drawing_are_drawn_together():
    "Copies of a picture tell nothing new: the interval is that of drawings."
    splits = dict(line=dict(kind='id', metric='accuracy'))
    def width(copies, drawing):
        answers = {}
        for m, right in (('ours', 60), ('weak', 45)):
            p = pd.concat([frame(right)]*copies, ignore_index=True)
            answers[m, 0] = p if drawing is None else p.assign(drawing=drawing(np.arange(len(p))))
        o = paired(bootstrap(answers, splits, ('id',)), 'ours')['id'].loc['weak']
        assert np.isclose(o.difference, 15)
        return o.high - o.low
    alone = width(1, None)
    assert abs(width(4, lambda i: i % 100)/alone - 1) < .07
    assert abs(width(4, None)/alone - .5) < .05 and abs(width(4, lambda i: i)/alone - .5) < .05

def test_intervals_hold_together():
    "Of normal differences, all within the intervals in 95 of 100; one comparison has the usual interval."
    rng = np.random.default_rng(0)
    one = half_widths(pd.DataFrame(rng.normal(size=(40_000, 1))))
    assert abs(one[0] - 1.96) < .03
    ten = half_widths(pd.DataFrame(rng.normal(size=(40_000, 10))*np.arange(1, 11)))
    assert np.allclose(ten/np.arange(1, 11), 2.80, atol=.05)  # the root of .95 of order 10
    assert half_widths(pd.DataFrame(np.zeros((9, 2)))).tolist() == [0, 0]
    mixed = half_widths(pd.DataFrame(dict(same=np.zeros(4000), other=rng.normal(size=4000))))
    assert mixed.same == 0 and abs(mixed.other - 1.96) < .1
