"""What low-rank adapters cost and save, against tuning everything.

    python tests/bench/lora.py [--repeats N] [settings]

Fine-tunes a small run with `trainable all` and with `trainable lora`, a new process each time, in turns.
Settings are those of a run, e.g. `limit=1000 rank=16`. The last line is a JSON object: the median step's
time, and the bytes of trained weights and moments, of lora as a part of that of all; on a GPU, peak memory
too."""
import argparse, json, subprocess, sys
from statistics import median

SMALL = dict(method='ft', limit='1000', epochs='1', cache='None')

RUN = """
import ast, json, sys, time
import torch
from sae_ft.clip import load_clip, zero_shot
from sae_ft.settings import Config
from sae_ft.suites import load_suite
from sae_ft.trainer import Tuning
def value(text):
    try: return ast.literal_eval(text)
    except (ValueError, SyntaxError): return text
cfg = Config(**{k: value(v) for k, v in (o.split('=', 1) for o in sys.argv[1:])}).check()
clip, suite, took, step = load_clip(cfg.model), load_suite(limit=cfg.limit, progress=False), [], Tuning.step
def timed(self, batches):
    if self.acc.device.type == 'cuda': torch.cuda.synchronize()
    t = time.perf_counter()
    step(self, batches)
    if self.acc.device.type == 'cuda': torch.cuda.synchronize()
    took.append(time.perf_counter() - t)
Tuning.step = timed
model = zero_shot(clip, suite.classnames, suite.templates)
tuning = Tuning(model, suite, None, cfg, (cfg.trainable,), None, False, None, None, None)
tuning.run(None)
moments = [v for o in tuning.opt.state.values() for v in o.values()]
grads = [p for g in tuning.opt.param_groups for p in g['params']]
peak = torch.cuda.max_memory_allocated() if tuning.acc.device.type == 'cuda' else None
print(json.dumps(dict(steps=took[3:], bytes=sum(o.nbytes for o in moments + grads), peak=peak)))
"""

def measured(trainable, settings):
    "Times of steps, bytes of gradients and moments, and peak memory of a fine-tuning in a new process."
    words = [f'{k}={v}' for k, v in dict(settings, trainable=trainable).items()]
    done = subprocess.run([sys.executable, '-c', RUN, *words], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('settings', nargs='*')
    args = parser.parse_args()
    settings = SMALL | dict(o.split('=', 1) for o in args.settings)
    found = {'all': [], 'lora': []}
    for _ in range(args.repeats):
        for name, each in found.items(): each.append(measured(name, settings))
    def part(number): return round(number(found['lora'])/number(found['all']), 3)
    ratios = dict(step=part(lambda o: median(t for run in o for t in run['steps'])),
                  training_state=part(lambda o: o[0]['bytes']))
    if found['all'][0]['peak']: ratios['peak'] = part(lambda o: o[0]['peak'])
    print(json.dumps(ratios))

if __name__ == '__main__': main()
