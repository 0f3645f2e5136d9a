"""The README's first command on this checkout and on another one, by turns.

    python tests/bench/main_job.py --before FOLDER [--seeds 0,1,2] [--repeats 1] [limit=200 epochs=1 ...]

FOLDER is a checkout of the commit to compare with. Each run is a process of its own that imports the package
of its checkout, writes to a fresh folder, and has a fresh cache (`SAE_FT_CACHE`), so nothing is found that
was made before. Words like `limit=200` are further parameters of both sides. Printed: seconds of the whole
command (the smallest of the repeats), the highest memory of its processes together, and the accuracies after
tuning, means by kind of split, with their difference beside the spread over seeds. The last line is one JSON
object: `main_ratio` (seconds before / now, summed over seeds), `peak_gb` and `peak_gb_before`,
`accuracy_change` by kind in points (now less before, mean over seeds) and `accuracy_spread` (standard
deviation over seeds of the earlier one)."""
import argparse, json, os, statistics, subprocess, sys, tempfile, time
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parents[2]

def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--before', required=True, type=Path, help='another checkout')
    p.add_argument('--seeds', default='0,1,2')
    p.add_argument('--repeats', type=int, default=1)
    p.add_argument('settings', nargs='*', help='name=value, for both sides')
    return p.parse_args()

def memory(process):
    "GB of a process and all that it started, at this moment."
    total = 0
    for o in [process, *process.children(recursive=True)]:
        try: total += o.memory_info().rss
        except psutil.NoSuchProcess: continue
    return total/2**30

def watched(command, **how):
    "Seconds that a command takes, and its highest memory in GB. Raises RuntimeError with its last words."
    t, peak = time.perf_counter(), 0.
    with tempfile.TemporaryFile('w+') as said:
        p = subprocess.Popen(command, stdout=said, stderr=said, **how)
        process = psutil.Process(p.pid)
        while p.poll() is None:
            try: peak = max(peak, memory(process))
            except psutil.NoSuchProcess: break
            time.sleep(.2)
        seconds = time.perf_counter() - t
        if p.wait():
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {said.read()[-2000:]}")
    return seconds, peak

def accuracies(metrics):
    "Kind of split -> mean over its splits, after tuning, from the line that ends a record."
    end = json.loads(metrics.read_text().splitlines()[-1])
    kinds = {}
    for o in end['after'].values(): kinds.setdefault(o['kind'], []).append(100*o['value'])
    return {k: statistics.mean(v) for k, v in kinds.items()}

def job(checkout, seed, settings):
    "Seconds, GB and accuracies of one run."
    with tempfile.TemporaryDirectory() as tmp:
        given = dict(lam='1', seed=str(seed), out_dir=f'{tmp}/run')
        given.update(o.split('=', 1) for o in settings)
        parameters = [word for k, v in given.items() for word in ('-p', k, v)]
        notebooks = 'nbs/05_finetune.ipynb', f'{tmp}/out.ipynb'
        command = [sys.executable, '-m', 'papermill', *notebooks, *parameters]
        env = dict(os.environ, PYTHONPATH=str(checkout), SAE_FT_CACHE=f'{tmp}/cache')
        return *watched(command, cwd=checkout, env=env), accuracies(Path(tmp)/'run'/'metrics.jsonl')

def best(runs):
    "The smallest time of repeats, their highest memory, and the first accuracies, which repeats share."
    seconds, gb, found = zip(*runs)
    return min(seconds), max(gb), found[0]

def spread(values): return statistics.stdev(values) if len(values) > 1 else 0.

def compare(before, now):
    "Prints a line a kind of split; returns change of the mean and spread over seeds, in points."
    change, around = {}, {}
    print(f"\n{'accuracy, %':<14}{'before':>8}{'now':>8}{'change':>8}{'spread':>8}   change by seed")
    for kind in before[0][2]:
        a, b = ([o[2][kind] for o in side] for side in (before, now))
        change[kind], around[kind] = statistics.mean(b) - statistics.mean(a), spread(a)
        by_seed = ' '.join(f'{y - x:+.2f}' for x, y in zip(a, b))
        print(f'{kind:<14}{statistics.mean(a):8.2f}{statistics.mean(b):8.2f}{change[kind]:+8.2f}'
              f'{around[kind]:8.2f}   {by_seed}')
    return change, around

def main():
    args = arguments()
    sides = dict(before=args.before.resolve(), now=HERE)
    done = {side: [] for side in sides}
    print(f"{'seed':<6}{'side':<8}{'seconds':>9}{'GB':>7}", flush=True)
    for seed in args.seeds.split(','):
        runs = {side: [] for side in sides}
        for _ in range(args.repeats):
            for side, checkout in sides.items(): runs[side].append(job(checkout, seed, args.settings))
        for side in sides:
            done[side].append(best(runs[side]))
            seconds, gb, _ = done[side][-1]
            print(f'{seed:<6}{side:<8}{seconds:>9.1f}{gb:>7.2f}', flush=True)
    change, around = compare(done['before'], done['now'])
    total = {side: sum(o[0] for o in runs) for side, runs in done.items()}
    peak = {side: max(o[1] for o in runs) for side, runs in done.items()}
    rounded = [{k: round(v, 3) for k, v in o.items()} for o in (change, around)]
    print(f"\n{total['before']:.0f} s before, {total['now']:.0f} s now")
    print(json.dumps(dict(
        main_ratio=round(total['before']/total['now'], 3), peak_gb=round(peak['now'], 2),
        peak_gb_before=round(peak['before'], 2), accuracy_change=rounded[0], accuracy_spread=rounded[1])))

if __name__ == '__main__': main()
