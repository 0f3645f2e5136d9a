"Drift measures against plain loops in float64."
import json, math
from dataclasses import asdict
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from sae_ft.clip import Classifier
from sae_ft.drift import PUBLISHED_CKA, drift_frame, epoch_frame, figure2, main_strength, mean_sd, summary, table1, table1_order, table2, verdict
from sae_ft.runs import read_runs
from sae_ft.drift_measures import CKA, cka, cka_transposed, measure_drift, entropy, jaccard, preserved
from sae_ft.experiment import epoch_drift
from sae_ft.sae import TopKSAE, fvu
from sae_ft.evaluation import embed_splits
from sae_ft.settings import Config

def pair(N=40, dx=4, dy=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N, dx, generator=g, dtype=torch.float64)
    return x, x @ torch.randn(dx, dy, generator=g, dtype=torch.float64) + torch.randn(N, dy, generator=g, dtype=torch.float64)

def centred(x):
    rows = x.tolist()
    mean = [sum(r[j] for r in rows)/len(rows) for j in range(len(rows[0]))]
    return [[v - m for v, m in zip(r, mean)] for r in rows]

def square_sum(a, b):
    "|A^T B|_F^2"
    return sum(sum(r[i]*q[j] for r, q in zip(a, b))**2 for i in range(len(a[0])) for j in range(len(b[0])))

def test_cka_is_the_formula():
    x, y = pair()
    a, b = centred(x), centred(y)
    assert cka(x, y) == pytest.approx(square_sum(b, a)/math.sqrt(square_sum(a, a)*square_sum(b, b)), abs=1e-6)

def test_streaming_is_exact_far_from_zero():
    x, y = (o + 1000 for o in pair(500))
    acc = CKA()
    for i in range(0, 500, 77): acc.add(x[i:i+77], y[i:i+77])
    assert acc.result() == pytest.approx(cka(x - 1000, y - 1000), abs=1e-6)

def test_what_cka_sees_and_what_not():
    x, _ = pair(2000, 8)
    g = torch.Generator().manual_seed(1)
    Q = torch.linalg.qr(torch.randn(8, 8, generator=g, dtype=torch.float64))[0]
    assert [cka(x, x), cka(x, x @ Q), cka(x, -3*x + 7)] == pytest.approx([1, 1, 1], abs=1e-6)
    assert cka(x, x[torch.randperm(2000, generator=g)]) < .02

def gram(x):
    "d x d products of columns, row means and column means taken off."
    d = len(x[0])
    k = [[sum(r[i]*r[j] for r in x) for j in range(d)] for i in range(d)]
    mean = [sum(r)/d for r in k]
    return [k[i][j] - mean[i] - mean[j] + sum(mean)/d for i in range(d) for j in range(d)]

def test_transposed_is_the_formula():
    x, y = pair(dy=4)
    k, l = gram(x.tolist()), gram(y.tolist())
    assert cka_transposed(x, y) == pytest.approx(sum(a*b for a, b in zip(k, l))/math.sqrt(sum(a*a for a in k)*sum(b*b for b in l)), abs=1e-9)

def test_transposed_sees_places_and_not_pictures():
    x, _ = pair(200, 8)
    x = x/torch.arange(1, 9)
    Q = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    assert cka_transposed(x, x @ Q) < .9 and cka_transposed(x, x.flip(0)) == pytest.approx(1)
    with pytest.raises(ValueError, match='8 and 3 numbers'): cka_transposed(x, x[:, :3])

def test_cka_refuses():
    with pytest.raises(ValueError, match='there are 3 and 2 rows'): cka(torch.zeros(3, 2), torch.zeros(2, 2))
    with pytest.raises(ValueError, match='two pictures at least, not 1'): cka(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match='two pictures at least, not 0'): CKA().result()

def test_preserved_and_jaccard_are_the_formula():
    g = torch.Generator().manual_seed(0)
    s0, s = (torch.rand(30, 12, generator=g)*(torch.rand(30, 12, generator=g) < .3) for _ in range(2))
    s0[3] = 0
    sets = [({i for i, v in enumerate(a) if v}, {i for i, v in enumerate(b) if v}) for a, b in zip(s0.tolist(), s.tolist())]
    kept = [len(a & b)/len(a) for a, b in sets if a]
    over = [len(a & b)/len(a | b) for a, b in sets if a | b]
    assert preserved(s0, s) == pytest.approx(sum(kept)/len(kept), abs=1e-6) and jaccard(s0, s) == pytest.approx(sum(over)/len(over), abs=1e-6)
    assert preserved(s0, s0) == jaccard(s0, s0) == 1

def test_entropy_is_the_formula():
    s = torch.rand(30, 12, generator=torch.Generator().manual_seed(0))
    mean = [sum(r[i] for r in s.tolist())/30 for i in range(12)]
    p = [m/sum(mean) for m in mean]
    assert entropy(s) == pytest.approx(-sum(o*math.log(o) for o in p), abs=1e-6)
    assert entropy(torch.eye(8)) == pytest.approx(math.log(8)) and entropy(torch.tensor([[2., 0.], [1., 0.]])) == 0

def test_drift_puts_them_together():
    torch.manual_seed(0)
    sae, z0 = TopKSAE(6, k=2), torch.randn(50, 6)
    still, moved = measure_drift(sae, z0, z0), measure_drift(sae, z0, z0 + torch.randn(50, 6))
    assert list(still) == 'cka cka_transposed fvu_before fvu fvu_zero preserved jaccard entropy_before entropy'.split()
    assert still['cka'] == pytest.approx(1) and still['fvu'] == still['fvu_before'] and still['preserved'] == still['jaccard'] == 1
    assert moved['cka'] < .9 and moved['preserved'] < 1 and moved['fvu_before'] == still['fvu_before']
    assert still['fvu_zero'] == pytest.approx(fvu(sae.normalise(z0), sae(z0), 'zero').item())

# --- after every epoch

class Tower(nn.Linear):
    "An image tower as small as can be."
    preprocess_cfg = dict(size=4, mode='RGB', mean=(.5,)*3, std=(.5,)*3, interpolation='bicubic', resize_mode='shortest', fill_color=0)
    def forward(self, x): return super().forward(x.flatten(1))

def test_epoch_drift_is_the_drift_of_each_file_and_leaves_no_trace(tmp_path):
    torch.manual_seed(0)
    model, sae = Classifier(Tower(48, 6), torch.eye(6)), TopKSAE(6, k=2)
    pixels = np.random.default_rng(0).integers(0, 255, (20, 4, 4, 3), dtype=np.uint8)
    data, cfg = Dataset.from_dict(dict(image=[Image.fromarray(o) for o in pixels], label=[0]*20)), Config(precision='fp32', device='cpu')
    theta = {k: v.clone() for k, v in model.state_dict().items()}
    z0 = embed_splits(model, dict(a=data), cfg, progress=False)['a'][0]
    other = dict(theta, **{'visual.weight': torch.randn(6, 48)})
    files = {10: tmp_path/'epoch-10.safetensors', 2: tmp_path/'epoch-2.safetensors'}
    save_file(theta, files[2]); save_file(other, files[10])
    still, moved = epoch_drift(files, model, sae, data, z0, cfg)
    assert (still.pop('epoch'), moved.pop('epoch')) == (2, 10)
    assert still == pytest.approx(measure_drift(sae, z0, z0))
    model.load_state_dict(other)
    assert moved == pytest.approx(measure_drift(sae, z0, embed_splits(model, dict(a=data), cfg, progress=False)['a'][0]))
    with pytest.raises(FileNotFoundError): epoch_drift({1: tmp_path/'none'}, model, sae, data, z0, cfg)
    assert all(torch.equal(v, other[k]) for k, v in model.state_dict().items())

# --- tables from run folders

KEYS = 'cka cka_transposed fvu_before fvu fvu_zero preserved jaccard entropy_before entropy'.split()
def numbers(x): return dict({k: x + i/100 for i, k in enumerate(KEYS)}, fvu_before=.03, entropy_before=.07)  # before tuning: the same in every line
def both(x): return dict(line=numbers(x), emoji=numbers(x + 1))
RESULT = dict(line=dict(kind='id'), emoji=dict(kind='far'))

def record(folder, method='ft', seed=0, lam=1., tuned=.2, average=.5, wise=.8, end=True, epochs=(), **settings):
    "A run folder with made-up numbers."
    lines = [dict(event='drift', splits=both(tuned)), dict(event='average', drift=both(average)), *(dict(event='wise', alpha=a, drift=both(v)) for a, v in [(.25, .9), (.5, wise)])]
    lines += [dict(event='epoch_drift', epoch=e, split='line', **numbers(x)) for e, x in enumerate(epochs, 1)] + [dict(event='end', after=RESULT)]*end
    folder.mkdir(parents=True)
    (folder/'config.json').write_text(json.dumps(dict(settings=asdict(Config(method=method, seed=seed, lam=lam, **settings)))))
    (folder/'metrics.jsonl').write_text(''.join(json.dumps(o) + '\n' for o in lines))

@pytest.fixture
def root(tmp_path):
    for s, w in enumerate([.8, .8, .4]): record(tmp_path/'main'/f'ft-{s}', seed=s, tuned=.2 + .1*s, wise=w, epochs=(.6, .2 + .1*s))
    for s in (0, 1): record(tmp_path/'main'/f'sae-{s}', 'sae-ft', s, 2., tuned=.1)
    for s in (0, 1): record(tmp_path/'main'/f'zero-{s}', 'zero-shot', s, tuned=0.)
    record(tmp_path/'tune'/'sae', 'sae-ft', 0, 9.)
    record(tmp_path/'cut', end=False)
    record(tmp_path/'k', 'sae-ft', k=4)
    return tmp_path

def test_runs_are_found_and_chosen(root):
    assert len(read_runs(root)) == 9 and len(read_runs(root, k=8)) == 8
    with pytest.raises(FileNotFoundError, match=r"lies under '.*nothing'"): read_runs(root/'nothing')
    with pytest.raises(FileNotFoundError): read_runs(root/'cut')

def test_one_run_in_two_stages_counts_once(root):
    record(root/'lam'/'sae-0', 'sae-ft', 0, 2.)
    assert len(read_runs(root)) == 9

def test_records_from_before_the_measures_are_passed_over(root):
    path = root/'main'/'ft-0'/'metrics.jsonl'
    path.write_text(path.read_text().replace('cka_transposed', 'something'))
    assert len(read_runs(root)) == 8

def test_rows(root):
    frame = drift_frame(read_runs(root, k=8))
    assert len(frame) == 8*4*2 and set(frame.model) == {'tuned', 'average', 'wise_0.25', 'wise_0.5'}
    row = frame[(frame.method == 'ft') & (frame.seed == 1) & (frame.model == 'wise_0.5') & (frame.split == 'emoji')].iloc[0]
    assert row.kind == 'far' and row.lam == 1 and [row[k] for k in KEYS] == pytest.approx(list(numbers(1.8).values()))
    main = main_strength(frame)
    assert main.groupby('method').lam.unique().map(list).to_dict() == {'ft': [1.], 'sae-ft': [2.], 'zero-shot': [1.]}

def test_table1(root):
    frame = main_strength(drift_frame(read_runs(root, k=8)))
    t = table1(frame)
    assert list(t.iloc[:, 0]) == list(PUBLISHED_CKA.values()) == [.40, .67, .83] and 'published' in t.columns[0]
    assert list(t['linear CKA, ours']) == ['0.300 ± 0.100', '0.500 ± 0.000', '0.667 ± 0.231'] and list(t['transposed quantity, ours'])[0] == '0.310 ± 0.100'
    assert list(t['seeds']) == [3, 3, 3] and table1_order(frame).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="no run of 'ft' has a record of 'wise_0.5'"): table1(frame[frame.model != 'wise_0.5'])

def test_table2(root):
    frame = main_strength(drift_frame(read_runs(root, k=8)))
    t = table2(frame)
    assert list(t.index) == ['zero-shot', 'FT', 'SAE-FT'] and list(t['FVU, published'])[0] == '0.22'
    assert list(t['FVU, ours']) == ['0.030 ± 0.000', '0.330 ± 0.100', '0.130 ± 0.000'] and list(t['FVU against zero, ours'])[1] == '0.340 ± 0.100'
    with pytest.raises(ValueError, match="no run of 'sae-ft'"): table2(frame[frame.method != 'sae-ft'])

def test_summary(root):
    frame = drift_frame(read_runs(root, k=8))
    t = summary(main_strength(frame[(frame.model == 'tuned') & (frame.split == 'line')]))
    assert list(t.index) == ['ft', 'sae-ft', 'zero-shot'] and t.cka['ft'] == '0.30 ± 0.10' and t.seeds['ft'] == 3

def test_epochs_begin_at_the_known_answer(root):
    frame = epoch_frame(read_runs(root, k=8))
    first = frame[frame.epoch == 0].set_index('seed')
    assert len(frame) == 3*3 and (first[['cka', 'preserved', 'jaccard']] == 1).all(axis=None) and (first.fvu == .03).all() and (first.entropy == .07).all()
    axs = figure2(main_strength(frame))
    assert axs[0].lines[0].get_ydata() == pytest.approx([1, .6, .3])
    with pytest.raises(ValueError, match='keep_epochs'): figure2(epoch_frame([]))

def test_cells_and_verdicts():
    assert mean_sd([1, 3], 1) == '2.0 ± 1.4' and mean_sd([.12345]) == '0.123'
    assert [verdict(o).split(': ')[1] for o in ([True], [False], [True, False])] == ['confirmed', 'refuted', 'not settled']
    assert verdict(pd.Series([True, False])).startswith('holds in 1 of 2')

# --- the committed records

def test_the_notebooks_tables_are_those_of_the_committed_records():
    nbs = Path(__file__).parents[1]/'nbs'
    shown = {c.source.strip(): c.outputs[0].data['text/html'] for c in nbformat.read(nbs/'06_drift.ipynb', 4).cells if c.source.strip() in ('table1(frame)', 'table2(frame)') and c.outputs}
    frame = main_strength(drift_frame(read_runs(nbs/'results', **{k: getattr(Config(), k) for k in ('dataset', 'model', 'k', 'expansion', 'sae_kind')})))
    assert shown == {'table1(frame)': table1(frame)._repr_html_(), 'table2(frame)': table2(frame)._repr_html_()}
