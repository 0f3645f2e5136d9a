"Tables of distribution shifts: known answers on made-up run folders, and the committed tables made again from the committed records."
import io, time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import f1_score

from fake_runs import METHODS, fake_results, fake_run
from sae_ft import methods
from sae_ft.plumbing.style import METHOD_COLOURS
from sae_ft.runs import read_runs
from sae_ft.paper import paper_tables
from sae_ft.shifts import ablation_table, cell, choose, compared, interval, kind_means, leader, main_table, per_run, published, tidy
from sae_ft.shifts_figures import above, curves, plot_strength, plot_wise
from sae_ft.shifts_paired import accuracy_of, answers_of, bootstrap, draws, fair_wins, macro_f1_of, paired, who_wins
from sae_ft.paper import CANDIDATES

RESULTS = Path(__file__).resolve().parent.parent/'nbs'/'results'

@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return fake_results(tmp_path_factory.mktemp('fake')/'results', seeds=(0, 1, 2))

@pytest.fixture(scope='module')
def main(root): return read_runs(root/'main')

# --- reading

def test_a_run_without_its_last_line_is_named_and_left_out(tmp_path, capsys):
    fake_run(tmp_path/'good', 'ft')
    fake_run(tmp_path/'cut-off', 'ft', finished=False)
    assert [o.folder.name for o in read_runs(tmp_path)] == ['good']
    assert capsys.readouterr().out == 'left out, not finished: cut-off\n'

def test_no_finished_run_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run lies under .*: make the records first, with `make paper`.$"): read_runs(tmp_path/'main')

def test_tidy_has_a_row_for_every_run_model_and_split(main):
    df, run = tidy(main), main[0]
    assert len(df) == sum(len(o['splits']) for r in main for o in r.of('wise') + r.of('average')) + sum(len(r.metrics[-1]['after']) for r in main)
    one = df[(df.method == run.config.method) & (df.seed == run.config.seed) & (df.split == 'emoji')].set_index('model')
    assert one.value['tuned'] == run.metrics[-1]['after']['emoji']['value'] and one.value['average'] == run.of('average')[0]['splits']['emoji']['value']
    assert set(one.zero_shot) == {run.metrics[-1]['before']['emoji']['value']} and set(one.kind) == {'far'} and set(one.metric) == {'accuracy'}

# --- the main table

def test_the_interval_is_that_of_the_t_test():
    v = np.array([.51, .48, .55, .50, .53])
    low, high = ttest_1samp(v, 0).confidence_interval(.95)
    mean, half = interval(v)
    assert np.allclose([mean - half, mean + half], [low, high])
    assert cell([.25]) == '25.0' and np.isnan(interval([.25])[1])

def test_main_table_cells_agree_with_a_loop_over_records(main):
    table = main_table(tidy(main))
    assert table.index[0] == 'zero-shot' and {'wise-ft', 'rep-avg', *METHODS} < set(table.index)
    assert ('far: accuracy (%)', 'mean') in table and not any('transfer' in o[0] for o in table.columns)
    for method in ('ft', 'sae-ft'):
        records = [o.metrics[-1]['after'] for o in main if o.config.method == method]
        far = [np.mean([r['value'] for r in o.values() if r['kind'] == 'far']) for o in records]
        assert table.loc[method, ('far: accuracy (%)', 'mean')] == cell(far)
        assert table.loc[method, ('id: accuracy (%)', 'line')] == cell([o['line']['value'] for o in records])
    half = [o.of('wise') for o in main if o.config.method == 'ft']
    assert table.loc['wise-ft', ('near: accuracy (%)', 'hand')] == cell([next(w['splits']['hand']['value'] for w in o if w['alpha'] == .5) for o in half])
    assert table.loc['zero-shot', ('far: accuracy (%)', 'emoji')] == cell([main[0].metrics[-1]['before']['emoji']['value']])

def test_methods_are_sorted_by_the_last_mean(main):
    table, v = main_table(tidy(main)), kind_means(compared(tidy(main))).query("kind == 'far'").groupby('method').value.mean()
    assert list(v[table.index[1:]]) == sorted(v[table.index[1:]], reverse=True)

def test_lam_stands_only_at_methods_that_have_a_price(main):
    lam = main_table(tidy(main))[('', 'lam')]
    assert lam['sae-ft'] and not any(lam[o] for o in ('zero-shot', 'ft', 'lp', 'wise-ft', 'rep-avg'))

def test_two_strengths_under_one_name_are_refused(root):
    with pytest.raises(ValueError, match='two runs with seed 0: a table needs one strength'): main_table(tidy(read_runs(root/'lam')))

def test_the_metric_stands_in_the_header(root):
    table = main_table(tidy(read_runs(root/'wild')), ('id', 'far'))
    assert [o for o in table.columns if o[0]] == [('id: macro-F1 (%)', 'id-test'), ('far: macro-F1 (%)', 'ood-test')]

def test_leader_names_the_highest_and_the_rank_of_ours(main):
    df = tidy(main)
    v = kind_means(compared(df)).query("kind == 'far'").groupby('method').value.mean().sort_values(ascending=False)
    text = leader(df, 'far')
    assert text.startswith(f'Highest mean accuracy on far splits: {v.index[0]} with {100*v.iloc[0]:.1f} %')
    assert f"sae-ft is number {list(v.index).index('sae-ft') + 1} of {len(v)}" in text

# --- bootstrap

def test_metrics_of_resamples_agree_with_sklearn_on_resampled_rows():
    rng = np.random.default_rng(0)
    label = rng.integers(6, size=50)
    answers = np.where(rng.random((2, 50)) < .6, label, rng.integers(8, size=(2, 50)))
    W = draws(50, 30, rng)
    for r, a in enumerate(answers):
        for b, w in enumerate(W):
            rows = np.repeat(np.arange(50), w.astype(int))
            assert np.isclose(accuracy_of(answers, label, W)[r, b], (a[rows] == label[rows]).mean(), atol=1e-6)
            assert np.isclose(macro_f1_of(answers, label, W)[r, b], f1_score(label[rows], a[rows], average='macro'), atol=1e-6)

def test_draws_keep_their_number_and_begin_with_the_sample():
    W = draws(7, 500, np.random.default_rng(0))
    assert (W.sum(1) == 7).all() and (W[0] == 1).all() and abs(W[1:].mean(0) - 1).max() < .15

@pytest.mark.parametrize('stage, kinds', [('main', ('id', 'far', 'transfer')), ('wild', ('id', 'far'))])
def test_row_0_of_the_bootstrap_is_what_the_records_say(root, stage, kinds):
    runs = read_runs(root/stage)
    values, rows = bootstrap(answers_of(runs), runs[0].metrics[-1]['after'], kinds, B=3), compared(tidy(runs))
    for kind, v in values.items():
        want = kind_means(rows[rows.kind == kind]).groupby('method').value.mean()
        assert np.allclose(v.iloc[0], want[v.columns], atol=1e-6)

def frame(right, n=100): return pd.DataFrame(dict(split='line', label=0, answer=np.where(np.arange(n) < right, 0, 1)))

def test_both_levels_are_resampled():
    splits = dict(line=dict(kind='id', metric='accuracy'))
    ours = {('ours', s): frame(r) for s, r in enumerate([40, 60, 80])}
    same = paired(bootstrap(ours | {('copy', s): o for (_, s), o in ours.items()}, splits, ('id',)), 'ours')['id'].loc['copy']
    assert (same == 0).all()  # paired: what both share cancels
    never = paired(bootstrap(ours | {('never', s): frame(0) for s in range(3)}, splits, ('id',)), 'ours')['id'].loc['never']
    assert np.isclose(never.difference, 60) and never['below 0'] == 0
    spread = (2/3*(20**2)/3 + 60*40/100)**.5  # of seeds (variance with 1/S), and of pictures
    assert abs((never.high - never.low)/(2*1.96*spread) - 1) < .25

def test_two_thousand_resamples_take_seconds(main):
    start = time.process_time()
    table = paired(bootstrap(answers_of(main), main[0].metrics[-1]['after'], ('id', 'far')))
    assert time.process_time() - start < 10 and set(table.index) == {'zero-shot', 'wise-ft', 'rep-avg', *METHODS} - {'sae-ft'}
    assert (table['far'].low <= table['far'].high).all() and table['far']['below 0'].between(0, 1).all()

def test_seeds_that_not_all_have_are_left_out_and_none_in_common_is_refused():
    splits = dict(line=dict(kind='id', metric='accuracy'))
    v = bootstrap({('a', 0): frame(50), ('a', 1): frame(90), ('b', 0): frame(40)}, splits, ('id',), B=5)
    assert list(v['id']) == ['a', 'b'] and np.allclose(v['id'].iloc[0], [.5, .4])
    with pytest.raises(ValueError, match='no seed in common'): bootstrap({('a', 0): frame(1), ('b', 1): frame(1)}, splits, ('id',))

def test_runs_judged_on_other_pictures_are_refused(tmp_path):
    runs = [fake_run(tmp_path/'a', 'ft'), fake_run(tmp_path/'b', 'l2', dataset='iconwild')]
    with pytest.raises(ValueError, match='other pictures'): answers_of(read_runs(tmp_path))
    (runs[1]/'predictions.parquet').unlink()
    with pytest.raises(FileNotFoundError, match='no predictions.parquet'): answers_of(read_runs(tmp_path))

def test_the_order_of_splits_does_not_matter(tmp_path):
    runs = [fake_run(tmp_path/f'{m}-{s}', m, s) for m in ('ft', 'l2') for s in (0, 1)]
    want = bootstrap(answers_of(read_runs(tmp_path)), read_runs(tmp_path)[0].metrics[-1]['after'], ('far',), B=4)
    p = pd.read_parquet(runs[1]/'predictions.parquet')
    pd.concat([o for _, o in reversed(list(p.groupby('split', sort=False)))]).to_parquet(runs[1]/'predictions.parquet', index=False)
    assert bootstrap(answers_of(read_runs(tmp_path)), read_runs(tmp_path)[0].metrics[-1]['after'], ('far',), B=4)['far'].equals(want['far'])

def made(**rows):
    "A table of `paired` from (low, high) on ID and far."
    part = lambda i: pd.DataFrame({m: dict(zip(('difference', 'low', 'high', 'below 0'), (sum(o[i])/2, *o[i], .5))) for m, o in rows.items()}).T
    return pd.concat(dict(id=part(0), far=part(1)), axis=1)

def test_sentences_can_say_that_ours_loses():
    table = made(l2=((-1, 1), (-4, -2)), ft=((-3, -1), (1, 3)), lp=((1, 2), (-1, 1)))
    assert who_wins(table, 'far') == 'far: sae-ft beats 1 of 3: ft (+2.0 [+1.0, +3.0]); is behind 1 of 3: l2 (-3.0 [-4.0, -2.0]); undecided against 1 of 3: lp (+0.0 [-1.0, +1.0]).'
    assert 'faces 2 of 3 baselines and beats 0 of these on the far mean, but not l2, lp. Clearly better than sae-ft in distribution: ft.' in fair_wins(table)
    assert who_wins(made(l2=((0, 1), (-4, -2))), 'far') == 'far: sae-ft beats 0 of 1; is behind 1 of 1: l2 (-3.0 [-4.0, -2.0]).'
    assert fair_wins(made(l2=((0, 1), (2, 3)))).endswith('beats 1 of these on the far mean. No baseline is clearly better than sae-ft in distribution.')

# --- choosing lam

def test_the_largest_lam_within_one_point_is_chosen(root):
    runs = read_runs(root/'tune')
    table = choose(runs)
    assert set(table.method) == set(CANDIDATES) and (table.groupby('method').chosen.sum() == 1).all()
    last = {(o.config.method, o.config.lam): o.of('epoch')[-1]['val_accuracy'] for o in runs}
    for method, lams in CANDIDATES.items():
        best = max(last['ft', 1.], *(last[method, l] for l in lams))
        assert table[table.chosen].set_index('method').lam[method] == max(l for l in lams if last[method, l] >= best - .01)

def test_choosing_looks_at_no_test_split(root, tmp_path):
    runs = read_runs(root/'tune')
    for o in runs: o.metrics = o.of('epoch')
    assert choose(runs).chosen.sum() == len(CANDIDATES)

# --- figures, ablation, published

def test_every_method_has_its_own_look():
    assert set(methods.METHODS) <= set(METHOD_COLOURS)
    assert len({tuple(o.values()) for o in METHOD_COLOURS.values()}) == len(METHOD_COLOURS)

def test_curves_go_from_zero_shot_to_tuned_over_seeds_that_have_every_point(main):
    way = curves(tidy(main))
    ft = way[way.method == 'ft']
    assert list(ft.alpha) == [0, .25, .5, .75, 1] and set(ft.seeds) == {2}
    records = [o.metrics[-1] for o in main if o.config.method == 'ft' and o.config.seed in (1, 2)]
    for alpha, key in (0, 'before'), (1, 'after'): assert np.isclose(ft.id[ft.alpha == alpha], np.mean([o[key]['line']['value'] for o in records]))
    ours = way[(way.method == 'sae-ft') & (way.alpha == 1)].iloc[0]
    better = above(way)
    assert ((better.id >= ours.id) & (better.far >= ours.far)).all() and 'sae-ft' not in set(better.method)
    assert {o.get_text() for o in plot_wise(way, 'accuracy').axes[0].texts} == {'zero-shot', *METHODS}

def test_strength_is_plotted_in_six_panels(root, main):
    table = per_run(read_runs(root/'lam'))
    fig = plot_strength(table, per_run([o for o in main if o.config.method == 'ft']))
    assert len(fig.axes) == 6 and all(o.get_xscale() == 'log' for o in fig.axes[:5]) and fig.axes[3].get_lines()

def test_ablation_compares_with_the_default_of_the_same_seed(root):
    runs = read_runs(root/'ablation')
    table = ablation_table(runs)
    far = {(o.config.k, o.config.expansion, o.config.sae_kind, o.config.seed): np.mean([r['value'] for r in o.metrics[-1]['after'].values() if r['kind'] == 'far']) for o in runs}
    d = [100*(far[16, 4, 'topk', s] - far[8, 4, 'topk', s]) for s in (0, 1)]
    assert table.loc[('topk', 16, 4), 'far: points over the default'] == ' to '.join(dict.fromkeys(f'{o:+.1f}' for o in sorted(d)))
    with pytest.raises(ValueError, match='no run has the default SAE'): ablation_table([o for o in runs if o.config.k != 8])

def test_published_rows_have_their_sources():
    table = published()
    assert table['published in'].all() and table.loc['FT', 'ImageNet: accuracy (%)'] == '81.3' and not set(table.index) & set(METHODS)

# --- all tables

def test_paper_tables_need_nothing_but_run_folders(root):
    assert set(paper_tables(root)) == {'choice', 'main', 'paired', 'transfer', 'transfer_paired', 'ablation', 'wild', 'wild_paired'}

def test_the_committed_tables_are_those_of_the_committed_records():
    "Text must be equal; the bootstrap's numbers may differ in what another processor rounds otherwise."
    made = paper_tables(RESULTS)
    assert {o.stem for o in (RESULTS/'tables').glob('*.csv')} == set(made)
    for name, table in made.items():
        text = (RESULTS/'tables'/f'{name}.csv').read_text(encoding='utf-8')
        if not name.endswith('paired'): assert table.to_csv() == text, name
        else:
            old = pd.read_csv(io.StringIO(text), header=[0, 1], index_col=0)
            assert set(old.index) == set(table.index) and np.allclose(old.loc[table.index].to_numpy(), table.to_numpy(), atol=.05), name
