"""How long a widget takes from a control to a new page, against the half second in which it should.

    python tests/bench/widgets.py [RUN FOLDER]

Without a folder, a small run on the embedded default is made first.
The pictures looked at are all of the default's."""
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

def studied(folder=None):
    "The features of a run, or of a small one that is made here."
    if folder: return study_features(folder, progress=False)
    with tempfile.TemporaryDirectory() as tmp:
        made = run(Config(method='ft', epochs=0, sae_epochs=10, out_dir=tmp + '/run'), progress=False)
        return study_features(made, progress=False)

def main(folder=None):
    study = studied(folder)
    browser, inspector = FeatureBrowser(study), ImageInspector(study)
    explorer = TradeOff(pd.read_csv(RESULTS/'tradeoff.csv'))
    b, i, e = browser.controls, inspector.controls, explorer.controls
    others = list(study.before)[1:]  # splits
    changes = {  # what is done -> control, values that it gets
        'browser, next rank': (b['rank'], range(2, 32)),
        'browser, a letter typed': (b['query'], ['b', 'be', 'bel', 'bell', '']),
        'browser, another split (first time)': (b['split'], others),
        'browser, another ranking': (b['how'], ['removed', 'strengthened', 'weakened', 'added']),
        'inspector, next picture': (i['row'], range(1, 31)),
        'inspector, another split': (i['split'], others),
        'trade-off, another alpha': (e['alpha'], [.5, .75, .25]),
        'trade-off, another method': (e['method'], ['ft', 'l2', 'sae-ft'])}
    print(f"{'control':<40}{'median s':>10}{'longest s':>11}{'longest / half a second':>25}")
    for what, change in changes.items():
        took = times(*change)
        print(f'{what:<40}{np.median(took):>10.3f}{max(took):>11.3f}{max(took)/HALF:>25.2f}')

if __name__ == '__main__': main(*sys.argv[1:])
