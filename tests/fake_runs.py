"Run folders with made-up answers, as `05_finetune` and `paper.copy_record` leave them: for tests alone."
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from sae_ft.paper import CANDIDATES, HEAD_FIRST, RATES, SIZES
from sae_ft.settings import Config

KINDS = [dict(sae_kind=o) for o in ('relu', 'batchtopk')]
METHODS = ['ft', 'lp', 'lp-ft', 'flyp', *CANDIDATES]
SUITES = {  # split -> (kind, metric, pictures, classes)
    'iconshift': {
        'line': ('id', 'accuracy', 300, 30),
        'line-new': ('near', 'accuracy', 200, 30), 'solid': ('near', 'accuracy', 150, 30),
        'duotone': ('near', 'accuracy', 150, 30), 'pixel': ('near', 'accuracy', 100, 30),
        'hand': ('near', 'accuracy', 60, 30),
        'color': ('far', 'accuracy', 150, 30), 'emoji': ('far', 'accuracy', 120, 30),
        'monoemoji': ('far', 'accuracy', 80, 30), 'game': ('far', 'accuracy', 80, 30),
        'animals': ('transfer', 'accuracy', 120, 12), 'tools': ('transfer', 'accuracy', 100, 10)},
    'iconwild': {'id-test': ('id', 'macro-F1', 200, 12), 'ood-test': ('far', 'macro-F1', 160, 12)}}
LEVEL = {'id': .80, 'near': .65, 'far': .48, 'transfer': .6}

def skill(method, lam, kind):
    "Change of accuracy that a made-up method brings on a kind of splits."
    gain = {'id': .06, 'near': .03, 'far': -.04, 'transfer': -.05}[kind]
    if method == 'zero-shot': return 0.
    if method == 'ft': return gain
    held, own = lam/(1 + lam)*(1. if method == 'sae-ft' else .7), method.removeprefix('lp-')
    nth = METHODS.index(method if method in METHODS else own)
    return gain*(1 - .3*held) + (.08*held if kind != 'id' else 0) - .002*nth

def answers(label, level, luck, classes, rng):
    "Right where the picture's luck is below the level, else another class."
    return np.where(luck < level, label, (label + rng.integers(1, classes, len(label))) % classes)

def value(metric, label, a):
    "The metric, from 0 to 1."
    if metric == 'accuracy': return float((label == a).mean())
    return float(f1_score(label, a, average='macro'))

def share_of(model):
    "How much of the tuned weights a model has, from 0 to 1."
    named = {'zero_shot': 0., 'tuned': 1., 'average': .5}
    return named[model] if model in named else float(model[5:])

def fake_run(
    folder,                   # to make
    method, seed=0, lam=1.,   # settings
    alphas=(.25, .5, .75),    # averages with zero-shot
    finished=True,            # whether the record has its last line
    **other,                  # further settings
) -> Path:
    "Write config.json, metrics.jsonl and predictions.parquet."
    folder, cfg = Path(folder), Config(method=method, seed=seed, lam=lam, **other)
    folder.mkdir(parents=True)
    suite, noise = SUITES[cfg.dataset], np.random.default_rng([seed, len(method), int(100*lam), cfg.k])
    moves = method != 'zero-shot'
    models = ['zero_shot', 'tuned']
    if moves: models += ['average', *(f'wise_{a:g}' for a in alphas)]
    frames, results = [], {m: {} for m in models}
    for i, (split, (kind, metric, n, classes)) in enumerate(suite.items()):
        fixed = np.random.default_rng(i)  # pictures are the same for all runs
        label, luck = fixed.integers(classes, size=n), fixed.random(n)
        wrong = fixed.integers(1 << 31)
        jitter = moves*(.04*noise.normal(size=n) + .008*noise.normal())
        frame = dict(split=split, label=label)
        for m in models:
            share = share_of(m)
            bonus = .12*share*(1 - share)
            level = LEVEL[kind] + share*skill(method, lam, kind) + bonus + share*jitter
            frame[m] = answers(label, level, luck, classes, np.random.default_rng(wrong))
            results[m][split] = dict(kind=kind, metric=metric, value=value(metric, label, frame[m]), n=n)
        frames.append(pd.DataFrame(frame))
    p = pd.concat(frames, ignore_index=True).astype({m: 'int16' for m in ('label', *models)})
    p.to_parquet(folder/'predictions.parquet', index=False)
    held = lam/(1 + lam) if method not in ('ft', 'flyp') else 0.
    moved = dict(cka=.8 + .18*held, cka_transposed=.7,
                 fvu_before=.8/(cfg.k + 1), fvu=.35 - .2*held, fvu_zero=.2,
                 preserved=.5 + .3*held, jaccard=.4, entropy_before=5., entropy=5.1)
    drift = {k: moved for k in suite}
    last = round(.89 - .01*held**4, 4)
    lines = [dict(event='sae', epoch=1, fvu=.1, l0=8., dead=.5),
             dict(event='epoch', epoch=1, step=10, val_accuracy=.7, seconds=1.),
             dict(event='epoch', epoch=2, step=20, val_accuracy=last, seconds=2.),
             dict(event='drift', splits=drift)]
    if moves:
        lines.append(dict(event='average', splits=results['average'], drift=drift))
        for a in alphas:
            of = results[f'wise_{a:g}']
            lines.append(dict(event='wise', alpha=a, val_accuracy=.8, splits=of, drift=drift))
    if finished:
        lines.append(dict(event='end', before=results['zero_shot'], after=results['tuned'], seconds=3.))
    (folder/'config.json').write_text(json.dumps(dict(settings=asdict(cfg))), encoding='utf-8')
    (folder/'metrics.jsonl').write_text(''.join(json.dumps(o) + '\n' for o in lines), encoding='utf-8')
    return folder

def fake_results(
    root,        # folder to fill, one folder a stage
    methods=METHODS,
    seeds=(0, 1, 2, 3, 4),
    lams={k: v[0] for k, v in CANDIDATES.items()},  # method -> the chosen one
) -> Path:
    "The stages of `paper.stages` that tables are made of."
    root = Path(root)
    def alphas(method, seed): return (.25, .5, .75) if seed in (1, 2) else (.5,) if method == 'ft' else ()
    for m in methods:
        for s in seeds: fake_run(root/'main'/f'{m}-seed{s}', m, s, lams.get(m, 1.), alphas(m, s))
    for m, candidates in {'ft': [1.], **CANDIDATES}.items():
        for l in candidates:
            for s in seeds[:3]: fake_run(root/'paths'/f'{m}-lam{l:g}-seed{s}', m, s, l, ())
    for m, rates in RATES.items():
        for lr in rates:
            for s in seeds[:2]: fake_run(root/'rates'/f'{m}-lr{lr:g}-seed{s}', m, s, alphas=(), lr=lr)
    for m, candidates in HEAD_FIRST.items():
        for l in candidates:
            for s in seeds[:2]: fake_run(root/'heads'/f'{m}-lam{l:g}-seed{s}', m, s, float(l), ())
    for i, o in enumerate([{}, *SIZES, *KINDS]):
        for s in seeds[:2]:
            fake_run(root/'ablation'/f'sae-ft-{i}-seed{s}', 'sae-ft', s, alphas=(), **o)
    for m in ('zero-shot', 'ft', 'lp', 'l2', 'sae-ft'):
        for s in seeds:
            fake_run(root/'wild'/f'{m}-seed{s}', m, s, alphas=alphas(m, s), dataset='iconwild')
    return root
