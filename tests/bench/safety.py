"""What it costs never to lose a run, as shares of the time of a default run.

    python tests/bench/safety.py [settings]

Settings are those of a run, e.g. `save_every=0 epochs=1`. Prints the share of the run that was spent on
writing files (states, embeddings, settings, record, results), and the share of the check of the pictures
that their checksums take.

    python tests/bench/safety.py kills [how many] [seed]

kills a tiny run and its export at that many seeded moments (20) of its parts, as many in each: SAE, tuning,
evaluation, export. Each goes on to its end, and must have the same bits as one that nobody disturbed."""
import ast, functools, hashlib, sys, tempfile, time
from collections import Counter
from pathlib import Path

import torch

from sae_ft import experiment
from sae_ft.data import undecoded
from sae_ft.plumbing import files, resume, store
from sae_ft.plumbing.pictures import decode
from sae_ft.settings import Config
from sae_ft.suites import load_suite

spent = {}  # label -> calls, seconds

def timed(owner, name, label):
    "Sum up the time in a function; time in one that another timed one called counts once."
    f = getattr(owner, name)
    @functools.wraps(f)
    def wrapped(*args, **kwargs):
        if timed.inside: return f(*args, **kwargs)
        timed.inside, t = True, time.perf_counter()
        try: return f(*args, **kwargs)
        finally:
            timed.inside = False
            n, s = spent.get(label, (0, 0.))
            spent[label] = n + 1, s + time.perf_counter() - t
    setattr(owner, name, wrapped)
timed.inside = False

def run(settings):
    "A run, and what saving took of it."
    timed(resume.Checkpoint, 'save', 'states')
    timed(store.Store, 'write', 'embeddings')
    timed(files.Journal, 'add', 'record')
    timed(experiment, 'write_json', 'settings')
    timed(experiment.Experiment, 'save', 'results')
    with tempfile.TemporaryDirectory() as tmp:
        t = time.perf_counter()
        experiment.run(Config(**settings, out_dir=f'{tmp}/run'), progress=False)
        return time.perf_counter() - t

def checksums():
    "Seconds to read and decode all pictures of the default, and to take their checksums."
    splits = load_suite(progress=False).splits.values()
    pictures = [o['image']['bytes'] for s in splits for o in undecoded(s.data)]
    took = []
    for f in (decode, lambda raw: hashlib.sha256(raw).digest()):
        t = time.perf_counter()
        for raw in pictures: f(raw)
        took.append(time.perf_counter() - t)
    return took

def kills(n=20, seed=0):
    "Kill and go on, n times; prints where, and what there was. Raises AssertionError at the first other bit."
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from lives import PARTS, killed_and_again, live, moments, noise, undisturbed
    from tiny_clip import make_tiny
    torch.set_num_threads(1)  # as in the processes that are killed
    live(bool, 0)             # imports everything, and the others find it there
    shares, found = moments(n, 1., seed), Counter()
    with tempfile.TemporaryDirectory() as tmp:
        (place := Path(tmp)/'tiny').mkdir()
        settings = dict(model=f'local-dir:{make_tiny(place)}', dataset=noise(Path(tmp)/'noise'), epochs=3,
                        batch_size=6, sae_epochs=60, lr=3e-4, log_every=1, precision='fp32', device='cpu',
                        cache=None)
        whole = undisturbed(settings, Path(tmp)/'whole')
        for i, share in enumerate(shares):
            part, mine = PARTS[i % len(PARTS)], dict(settings, save_every=(0., .1, 60.)[i % 3])
            code, last, exported = killed_and_again(mine, whole, Path(tmp)/str(i), part, share)
            found[where := f'in {last}' if code else 'at its end'] += 1
            there = 'an' if exported else 'no'
            words = f'{share:4.0%} into {part}: it was {where}, {there} export'
            print(f'{i + 1:2}: {words}; same bits in the end', flush=True)
    print(f"{n} lives, {n - found['at its end']} of them killed at work: {dict(found)}")

def main(*arguments):
    if arguments[:1] == ('kills',): return kills(*map(int, arguments[1:]))
    settings = {}
    for key, value in (o.split('=', 1) for o in arguments):
        settings[key] = ast.literal_eval(value) if value[:1].isdigit() else value
    whole = run(settings)
    for label, (n, s) in spent.items(): print(f'{label:10} {n:5} times {s:7.2f} s {s/whole:8.2%} of the run')
    saving = sum(s for _, s in spent.values())
    print(f'saving     {saving:18.2f} s {saving/whole:8.2%} of {whole:.0f} s')
    decoding, sums = checksums()
    print(f'checksums of pictures take {sums/(decoding + sums):.2%} of the time to check them')

if __name__ == '__main__': main(*sys.argv[1:])
