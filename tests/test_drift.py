"Tables of drift: known answers on made-up run folders, and the committed tables from the committed records."
import json
from dataclasses import asdict
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from sae_ft.drift import (PUBLISHED_CKA, drift_frame, epoch_frame, figure2, main_strength, mean_sd, summary,
                          table1, table1_order, fvu_table, verdict, with_drift)
from sae_ft.runs import read_runs
from sae_ft.settings import Config

KEYS = 'cka cka_transposed fvu_before fvu fvu_zero preserved jaccard entropy_before entropy'.split()
def numbers(x):
    "Drift from x on; what is before tuning is the same in every line."
    return dict({k: x + i/100 for i, k in enumerate(KEYS)}, fvu_before=.03, entropy_before=.07)

def both(x): return dict(line=numbers(x), emoji=numbers(x + 1))

RESULT = dict(line=dict(kind='id'), emoji=dict(kind='far'))

def record(folder, method='ft', seed=0, lam=1., tuned=.2, average=.5, wise=.8,
           end=True, epochs=(), **settings):
    "A run folder with made-up numbers."
    lines = [dict(event='drift', splits=both(tuned)), dict(event='average', drift=both(average))]
    lines += [dict(event='wise', alpha=a, drift=both(v)) for a, v in [(.25, .9), (.5, wise)]]
    lines += [dict(event='epoch_drift', epoch=e, split='line', **numbers(x)) for e, x in enumerate(epochs, 1)]
    if end: lines.append(dict(event='end', after=RESULT))
    cfg = Config(method=method, seed=seed, lam=lam, **settings)
    folder.mkdir(parents=True)
    (folder/'config.json').write_text(json.dumps(dict(settings=asdict(cfg))))
    (folder/'metrics.jsonl').write_text(''.join(json.dumps(o) + '\n' for o in lines))

@pytest.fixture
def root(tmp_path):
    for s, w in enumerate([.8, .8, .4]):
        record(tmp_path/'main'/f'ft-{s}', seed=s, tuned=.2 + .1*s, wise=w, epochs=(.6, .2 + .1*s))
    for s in (0, 1): record(tmp_path/'main'/f'sae-{s}', 'sae-ft', s, 2., tuned=.1)
    for s in (0, 1): record(tmp_path/'main'/f'zero-{s}', 'zero-shot', s, tuned=0.)
    record(tmp_path/'tune'/'sae', 'sae-ft', 0, 9.)
    record(tmp_path/'cut', end=False)
    record(tmp_path/'k', 'sae-ft', k=4)
    return tmp_path

def found(root, **settings): return with_drift(read_runs(root, **settings))

def test_runs_are_found_and_chosen(root, capsys):
    assert len(found(root)) == 9 and len(found(root, k=8)) == 8
    assert capsys.readouterr().out == 'left out, not finished: cut\n'*2
    with pytest.raises(FileNotFoundError, match=r"lies under '.*nothing'"): found(root/'nothing')
    with pytest.raises(FileNotFoundError): found(root/'cut')

def test_one_run_in_two_stages_counts_once(root):
    record(root/'lam'/'sae-0', 'sae-ft', 0, 2.)
    runs = found(root)
    assert len(runs) == 9
    assert [o.folder.parent.name for o in runs if o.folder.name == 'sae-0'] == ['main']  # the last in order

def test_records_from_before_the_measures_are_passed_over(root):
    path = root/'main'/'ft-0'/'metrics.jsonl'
    path.write_text(path.read_text().replace('cka_transposed', 'something'))
    assert len(found(root)) == 8
    message = '^no run has a record of drift: run the grid of sae_ft.paper first.$'
    with pytest.raises(ValueError, match=message):
        found(root/'main'/'ft-0')

def test_rows(root):
    frame = drift_frame(found(root, k=8))
    assert len(frame) == 8*4*2 and set(frame.model) == {'tuned', 'average', 'wise_0.25', 'wise_0.5'}
    row = frame.set_index(['method', 'seed', 'model', 'split']).sort_index().loc['ft', 1, 'wise_0.5', 'emoji']
    assert row.kind == 'far' and row.lam == 1
    assert [row[k] for k in KEYS] == pytest.approx(list(numbers(1.8).values()))
    main = main_strength(frame)
    lams = main.groupby('method').lam.unique().map(list).to_dict()
    assert lams == {'ft': [1.], 'sae-ft': [2.], 'zero-shot': [1.]}

def test_table1(root):
    frame = main_strength(drift_frame(found(root, k=8)))
    t = table1(frame)
    assert list(t.iloc[:, 0]) == list(PUBLISHED_CKA.values()) == [.40, .67, .83]
    assert 'published' in t.columns[0]
    assert list(t['linear CKA, ours']) == ['0.300 ± 0.100', '0.500 ± 0.000', '0.667 ± 0.231']
    assert list(t['transposed quantity, ours'])[0] == '0.310 ± 0.100'
    assert list(t['seeds']) == [3, 3, 3] and table1_order(frame).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="no run of 'ft' has a record of 'wise_0.5'"):
        table1(frame[frame.model != 'wise_0.5'])

def test_fvu_table(root):
    frame = main_strength(drift_frame(found(root, k=8)))
    t = fvu_table(frame)
    assert list(t.index) == ['zero-shot', 'FT', 'SAE-FT'] and list(t['FVU, published'])[0] == '0.22'
    assert list(t['FVU, ours']) == ['0.030 ± 0.000', '0.330 ± 0.100', '0.130 ± 0.000']
    assert list(t['FVU against zero, ours'])[1] == '0.340 ± 0.100'
    with pytest.raises(ValueError, match="no run of 'sae-ft'"): fvu_table(frame[frame.method != 'sae-ft'])

def test_summary(root):
    frame = drift_frame(found(root, k=8))
    t = summary(main_strength(frame[(frame.model == 'tuned') & (frame.split == 'line')]))
    assert list(t.index) == ['ft', 'sae-ft', 'zero-shot']
    assert t.cka['ft'] == '0.30 ± 0.10' and t.seeds['ft'] == 3

def test_epochs_begin_at_the_known_answer(root):
    frame = epoch_frame(found(root, k=8))
    first = frame[frame.epoch == 0].set_index('seed')
    assert len(frame) == 3*3 and (first[['cka', 'preserved', 'jaccard']] == 1).all(axis=None)
    assert (first.fvu == .03).all() and (first.entropy == .07).all()
    axs = figure2(main_strength(frame))
    assert axs[0].lines[0].get_ydata() == pytest.approx([1, .6, .3])
    with pytest.raises(ValueError, match='keep_epochs'): figure2(epoch_frame([]))

def test_cells_and_verdicts():
    assert mean_sd([1, 3], 1) == '2.0 ± 1.4' and mean_sd([.12345]) == '0.123'
    words = [verdict(o).split(': ')[1] for o in ([True], [False], [True, False])]
    assert words == ['confirmed', 'refuted', 'not settled']
    assert verdict(pd.Series([True, False])).startswith('holds in 1 of 2')

# --- the committed records

def test_the_notebooks_tables_are_those_of_the_committed_records():
    nbs = Path(__file__).parents[1]/'nbs'
    cells = nbformat.read(nbs/'06_drift.ipynb', 4).cells
    outputs = {c.source.strip(): c.outputs for c in cells if c.cell_type == 'code'}
    default = {k: getattr(Config(), k) for k in ('dataset', 'model', 'k', 'expansion', 'sae_kind')}
    runs = [o for k in ('sae', 'main') for o in found(nbs/'results'/k, **default)]
    frame = main_strength(drift_frame(runs))
    for cell, table in {'table1(frame)': table1(frame), 'fvu_table(frame)': fvu_table(frame)}.items():
        assert outputs[cell][0].data['text/html'] == table._repr_html_()
