"""How long a widget takes from a control to a new page, against the half second in which it should: on the embedded default.

    python tests/bench/widgets.py [RUN FOLDER]      (without one, a small run is made first; the pictures looked at are all of the default's)"""
import sys, tempfile, time
from pathlib import Path

import numpy as np
import pandas as pd

from sae_ft.experiment import run
from sae_ft.features import study_features
from sae_ft.settings import Config
from sae_ft.widgets import FeatureBrowser, ImageInspector, TradeOff

HALF = .5  # seconds
RESULTS = Path(__file__).parents[2]/'nbs'/'results'

def times(control, values):
    "Seconds from each new value to the new page."
    took = []
    for v in values:
        t = time.perf_counter()
        control.value = v
        took.append(time.perf_counter() - t)
    return took

def main(folder=None):
    with tempfile.TemporaryDirectory() as tmp:
        if not folder:
            run(Config(method='ft', epochs=0, sae_epochs=10, out_dir=tmp + '/run'), progress=False)
            folder = tmp + '/run'
        seen = study_features(folder, progress=False)
    browser, inspector, explorer = FeatureBrowser(seen), ImageInspector(seen), TradeOff(pd.read_csv(RESULTS/'tradeoff.csv'))
    b, i, e = browser.controls, inspector.controls, explorer.controls
    rows = {'browser, next rank': times(b['rank'], range(2, 32)), 'browser, a letter typed': times(b['query'], ['b', 'be', 'bel', 'bell', '']),
            'browser, another split (first time)': times(b['split'], list(seen.before)[1:]), 'browser, another ranking': times(b['how'], ['removed', 'strengthened', 'weakened', 'added']),
            'inspector, next picture': times(i['row'], range(1, 31)), 'inspector, another split': times(i['split'], list(seen.before)[1:]),
            'trade-off, another alpha': times(e['alpha'], [.5, .75, .25]), 'trade-off, another method': times(e['method'], ['ft', 'l2', 'sae-ft'])}
    print(f"{'control':<40}{'median s':>10}{'longest s':>11}{'longest / half a second':>25}")
    for k, v in rows.items(): print(f'{k:<40}{np.median(v):>10.3f}{max(v):>11.3f}{max(v)/HALF:>25.2f}')

if __name__ == '__main__': main(*sys.argv[1:])
