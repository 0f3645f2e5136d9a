"""How much longer a run takes when other programs use the processor.

    python tests/bench/busy.py [--before FOLDER] [--repeats N] [settings]

Times a small fine-tuning on two cores, a new process each time: alone, beside one endless process of one
thread, and beside two. Settings are those of a run, e.g. `limit=500`. `--before` does it once with the
package in another folder, such as a checkout of an older commit. The last line is a JSON object: how many
times as long as alone the run takes beside one (busy1) and beside two (busy2)."""
import argparse, json, os, platform, subprocess, sys, tempfile, time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
SMALL = dict(limit='1000', epochs='1', sae_epochs='10', cache='None')
OTHERS = 'alone', 'beside one', 'beside two'
OURS = 'OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME', 'KMP_LIBRARY'  # not a user's

RUN = """
import ast, dataclasses, sys
from sae_ft.experiment import run
from sae_ft.settings import Config
def value(text):
    try: return ast.literal_eval(text)
    except (ValueError, SyntaxError): return text
given = dict(o.split('=', 1) for o in sys.argv[2:])
known = {o.name for o in dataclasses.fields(Config)}   # an older version has fewer
settings = {k: value(v) for k, v in given.items() if k in known}
done = run(Config(**settings, out_dir=sys.argv[1]), progress=False)
print(done.provenance['hardware']['threads'])
"""

BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent:   # it ends with the measurement, however that ends
    for _ in range(10**6): pass
"""

def two_cores():
    "Keep this process and its children to two cores, where the system can; returns how many there are then."
    if not hasattr(os, 'sched_setaffinity'): return os.cpu_count()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    return len(os.sched_getaffinity(0))

def timed(folder, others, settings):
    "Seconds and threads of a run with the package in `folder`, beside so many busy processes."
    env = {k: v for k, v in os.environ.items() if k not in OURS} | dict(PYTHONPATH=str(folder))
    with tempfile.TemporaryDirectory() as tmp, ExitStack() as stack:
        for _ in range(others):
            busy = stack.enter_context(subprocess.Popen([sys.executable, '-c', BUSY]))
            stack.callback(busy.kill)
        if others: time.sleep(1)
        t = time.perf_counter()
        words = [sys.executable, '-c', RUN, f'{tmp}/run', *(f'{k}={v}' for k, v in settings.items())]
        done = subprocess.run(words, cwd=tmp, env=env, stdout=subprocess.PIPE, text=True, check=True)
        return time.perf_counter() - t, done.stdout.split()[-1]

def measure(label, folder, repeats, settings):
    "A table of a package, a row for each number of others; returns busy1 and busy2."
    took = [[] for _ in OTHERS]
    for _ in range(repeats):
        for others in range(3): took[others].append(timed(folder, others, settings))
    seconds = [median(s for s, _ in o) for o in took]
    for name, o, s in zip(OTHERS, took, seconds):
        threads = ', '.join(n for _, n in o)
        print(f'{label:7} {name:11} {s:7.1f} s {s/seconds[0]:6.2f} times as long   threads {threads}')
    return dict(busy1=round(seconds[1]/seconds[0], 2), busy2=round(seconds[2]/seconds[0], 2))

def main():
    sys.stdout.reconfigure(line_buffering=True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--before', type=Path, help='folder with an older sae_ft/')
    parser.add_argument('--repeats', type=int, default=3, help='of each measurement, for the median')
    parser.add_argument('settings', nargs='*', help='NAME=VALUE')
    args = parser.parse_args()
    settings = SMALL | dict(o.split('=', 1) for o in args.settings)
    print(f'{platform.machine()}, {platform.system()} {platform.release()}, {two_cores()} cores')
    if args.before: print(json.dumps(dict(before=measure('before', args.before.resolve(), 1, settings))))
    print(json.dumps(measure('now', ROOT, args.repeats, settings)))

if __name__ == '__main__': main()
