"Tables of distribution shifts: known answers on made-up run folders."
import numpy as np
import pytest
from fake_runs import METHODS, fake_run
from scipy.stats import ttest_1samp

from sae_ft.paper import CANDIDATES, RATES
from sae_ft.runs import read_runs
from sae_ft.shifts import (ablation_table, cell, choose, choose_rates, compared, interval, kind_means,
                           leader, main_table, per_run, published, tidy)


def means(run, model, kind):
    "The mean over the splits of a kind, by hand; model: 'before' or 'after'."
    return np.mean([o['value'] for o in run.metrics[-1][model].values() if o['kind'] == kind])

# --- reading

def test_a_run_without_its_last_line_is_named_and_left_out(tmp_path, capsys):
    fake_run(tmp_path/'good', 'ft')
    fake_run(tmp_path/'cut-off', 'ft', finished=False)
    assert [o.folder.name for o in read_runs(tmp_path)] == ['good']
    assert capsys.readouterr().out == 'left out, not finished: cut-off\n'

def test_no_finished_run_is_one_sentence(tmp_path):
    says = 'no finished run lies under .*: make the records first, with `make paper`.$'
    with pytest.raises(FileNotFoundError, match=says): read_runs(tmp_path/'main')

def test_tidy_has_a_row_for_every_run_model_and_split(main):
    df, run = tidy(main), main[0]
    averages = sum(len(o['splits']) for r in main for o in r.of('wise') + r.of('average'))
    assert len(df) == averages + sum(len(r.metrics[-1]['after']) for r in main)
    one = df[(df.method == run.config.method) & (df.seed == run.config.seed) & (df.split == 'emoji')]
    value = one.set_index('model').value
    assert value['tuned'] == run.metrics[-1]['after']['emoji']['value']
    assert value['average'] == run.of('average')[0]['splits']['emoji']['value']
    assert set(one.zero_shot) == {run.metrics[-1]['before']['emoji']['value']}
    assert set(one.kind) == {'far'} and set(one.metric) == {'accuracy'}

def test_a_row_a_run_has_the_means_of_each_kind_and_the_drift_on_id(main):
    for run, row in zip(main[:5], per_run(main[:5]).itertuples()):
        assert (row.method, row.seed) == (run.config.method, run.config.seed)
        assert row.far == means(run, 'after', 'far') and row.zero_far == means(run, 'before', 'far')
        assert row.near == means(run, 'after', 'near') and row.zero_id == means(run, 'before', 'id')
        assert (row.cka, row.fvu) == tuple(run.of('drift')[-1]['splits']['line'][k] for k in ('cka', 'fvu'))

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
        runs = [o for o in main if o.config.method == method]
        far = [means(o, 'after', 'far') for o in runs]
        line = [o.metrics[-1]['after']['line']['value'] for o in runs]
        assert table.loc[method, ('far: accuracy (%)', 'mean')] == cell(far)
        assert table.loc[method, ('id: accuracy (%)', 'line')] == cell(line)
    wise = [o.of('wise') for o in main if o.config.method == 'ft']
    half = [next(o['splits']['hand']['value'] for o in lines if o['alpha'] == .5) for lines in wise]
    assert table.loc['wise-ft', ('near: accuracy (%)', 'hand')] == cell(half)
    before = main[0].metrics[-1]['before']['emoji']['value']
    assert table.loc['zero-shot', ('far: accuracy (%)', 'emoji')] == cell([before])

def test_methods_are_sorted_by_the_last_mean(main):
    df = tidy(main)
    v = kind_means(compared(df)).query("kind == 'far'").groupby('method').value.mean()
    order = main_table(df).index[1:]
    assert list(v[order]) == sorted(v[order], reverse=True)

def test_lam_stands_only_at_methods_that_have_a_price(main):
    lam = main_table(tidy(main))[('', 'lam')]
    assert lam['sae-ft'] and not any(lam[o] for o in ('zero-shot', 'ft', 'lp', 'wise-ft', 'rep-avg'))

def test_two_strengths_under_one_name_are_refused(made_up):
    with pytest.raises(ValueError, match='two runs with seed 0: a table needs one strength'):
        main_table(tidy(read_runs(made_up/'paths')))

def test_the_metric_stands_in_the_header(made_up):
    table = main_table(tidy(read_runs(made_up/'wild')), ('id', 'far'))
    heads = [o for o in table.columns if o[0]]
    assert heads == [('id: macro-F1 (%)', 'id-test'), ('far: macro-F1 (%)', 'ood-test')]

def test_leader_names_the_highest_and_the_rank_of_ours(main):
    df = tidy(main)
    v = kind_means(compared(df)).query("kind == 'far'").groupby('method').value.mean()
    v = v.sort_values(ascending=False)
    text = leader(df, 'far')
    assert text.startswith(f'Highest mean accuracy on far splits: {v.index[0]} with {100*v.iloc[0]:.1f} %')
    assert f"sae-ft is number {list(v.index).index('sae-ft') + 1} of {len(v)}" in text

# --- choosing lam

def test_the_largest_lam_within_one_point_is_chosen(made_up):
    runs = read_runs(made_up/'paths')
    table = choose(runs)
    assert set(table.method) == set(CANDIDATES) and (table.groupby('method').chosen.sum() == 1).all()
    chosen = table[table.chosen].set_index('method').lam
    def ended(o): return o.of('epoch')[-1]['val_accuracy']
    last = {k: np.mean([ended(o) for o in runs if (o.config.method, o.config.lam) == k])
            for k in {(o.config.method, o.config.lam) for o in runs}}
    assert all(np.isclose(o.val_accuracy, last[o.method, o.lam]) for o in table.itertuples())
    last |= {(o.method, o.lam): o.val_accuracy for o in table.itertuples()}  # to the last bit: some are equal
    for method, lams in CANDIDATES.items():
        best = max(last['ft', 1.], *(last[method, l] for l in lams))
        assert chosen[method] == max(l for l in lams if best - last[method, l] <= .01)
    at_edge = {m for m, lams in CANDIDATES.items() if chosen[m] in (min(lams), max(lams))}
    assert set(table[table.edge].method) == at_edge

def test_choosing_looks_at_no_test_split(made_up):
    runs = read_runs(made_up/'paths')
    for o in runs: o.metrics = o.of('epoch')
    assert choose(runs).chosen.sum() == len(CANDIDATES)

def test_the_smallest_rate_within_one_point_is_chosen(made_up):
    runs = read_runs(made_up/'rates')
    table = choose_rates(runs)
    chosen = table[table.chosen].set_index('method').lr
    for method, rates in RATES.items():
        mean = {lr: np.mean([o.of('epoch')[-1]['val_accuracy'] for o in runs
                             if (o.config.method, o.config.lr) == (method, lr)]) for lr in rates}
        assert chosen[method] == min(lr for lr in rates if max(mean.values()) - mean[lr] <= .01 + 1e-12)
    assert set(table[table.edge].method) == {m for m, v in RATES.items() if chosen[m] in (min(v), max(v))}

# --- ablation, published

def test_ablation_compares_with_the_default_of_the_same_seed(made_up):
    runs = read_runs(made_up/'ablation')
    table = ablation_table(runs)
    far = {(o.config.sae_kind, o.config.k, o.config.expansion, o.config.seed): means(o, 'after', 'far')
           for o in runs}
    d = sorted(100*(far['topk', 16, 4, seed] - far['topk', 8, 4, seed]) for seed in (0, 1))
    span = ' to '.join(dict.fromkeys(f'{o:+.1f}' for o in d))
    assert table.loc[('topk', 16, 4, 3, 3), 'far: points over the default'] == span
    with pytest.raises(ValueError, match='no run has the default'):
        ablation_table([o for o in runs if o.config.k != 8])

def test_published_rows_have_their_sources():
    table = published()
    assert table['published in'].all() and not set(table.index) & set(METHODS)
    assert table.loc['FT', 'ImageNet: accuracy (%)'] == '81.3'
