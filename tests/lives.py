"Processes that really die, at seeded moments of the parts of a run, and what they leave, to the last bit."
import hashlib, json, multiprocessing, os, random, time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sae_ft.experiment import run
from sae_ft.export import export
from sae_ft.record import Timed
from sae_ft.runs import load_run
from sae_ft.settings import Config

LIVES = multiprocessing.get_context('forkserver')  # a new process begins with everything imported
LIVES.set_forkserver_preload(['sae_ft.experiment', 'sae_ft.export'])

def begin(target, arg, ready, part=None):
    "What a process does first: one thread, no words, and a sign that its work, or that part of it, begins."
    torch.set_num_threads(1)
    os.close(2)
    os.open(os.devnull, os.O_WRONLY)
    if part: Parts.of_interest, Parts.ready = part, ready
    else: ready.set()
    target(arg)

def live(target, arg, seconds=None, part=None):
    "One process, to its end or killed after so many seconds of work: its exit code, and how long it worked."
    ready = LIVES.Event()
    p = LIVES.Process(target=begin, args=(target, arg, ready, part))
    p.start()
    assert ready.wait(120)
    t = time.time()
    p.join(seconds)
    if p.is_alive(): p.kill()
    p.join()
    return p.exitcode, time.time() - t

def moments(n, whole, seed):
    "n random moments, one in each nth part of the whole, in random order."
    rng = random.Random(seed)
    return [(i + rng.random())/n*whole for i in rng.sample(range(n), n)]

def checksum(path): return hashlib.sha256(Path(path).read_bytes()).hexdigest()

def noise(root):
    "A folder with sixteen pictures of each of three classes."
    rng = np.random.default_rng(0)
    for c in ('cat', 'dog', 'tree'):
        (root/c).mkdir(parents=True)
        for i in range(16):
            pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root/c/f'{i}.png')
    return str(root)

def same(a, b):
    "Whether two finished runs agree to the last bit, in all but the time they took."
    def same_always(o): return {k: v for k, v in o.items() if k not in ('seconds', 'took')}
    def record(r): return json.dumps([same_always(o) for o in r.metrics])
    files = {o.name for o in a.folder.iterdir()}
    assert files == {o.name for o in b.folder.iterdir()}
    assert record(a) == record(b) and a.predictions.equals(b.predictions)
    for o in files:
        if o.endswith('.safetensors'): assert checksum(a.folder/o) == checksum(b.folder/o), o

# --- a run and its export, killed in one of its parts

PARTS = 'SAE', 'fine-tuning', 'judging', 'export'  # judging: till the export begins

class Parts:
    "Writes down when the parts of a life begin, and gives a sign at one of them."
    of_interest = ready = file = None
    @classmethod
    def begins(cls, part):
        with open(cls.file, 'a') as f: f.write(f'{part} {time.monotonic()}\n')
        if part == cls.of_interest: cls.ready.set()

def timed(self, part, was=Timed.timed):
    Parts.begins(part.replace(' ', '-'))
    return was(self, part)

def whole_life(arg):
    "A run to its end, and its export; a folder `run`, a folder `export`, a file `parts`."
    settings, root = arg
    Parts.file, Timed.timed = f'{root}/parts', timed
    done = run(Config(**settings, out_dir=f'{root}/run'), progress=False)
    Parts.begins('export')
    export(done, f'{root}/export', overwrite=True)
    Parts.begins('end')

def parts_of(root):
    "The parts that began, and how long each took in seconds."
    begun = [o.split() for o in (root/'parts').read_text().splitlines()]
    took = {a: float(to) - float(at) for (a, at), (_, to) in pairwise(begun)}
    end, judging = (dict(begun[::-1])[o] if o in dict(begun) else None for o in ('export', 'judging'))
    if end and judging: took['judging'] = float(end) - float(judging)
    return [a for a, _ in begun], took

def undisturbed(settings, root):
    "The life that nobody disturbs; returns its folder."
    root.mkdir()
    assert live(whole_life, (settings, str(root)))[0] == 0
    return root

def contents(folder): return {o.relative_to(folder): o.read_bytes() for o in folder.rglob('*') if o.is_file()}

def killed_and_again(settings, whole, root, part, share):
    """Kill a life at a share of a part, and live again: the files in the end are those of `whole`.

    Returns the exit code, the last part that had begun, and whether there was an export."""
    root.mkdir()
    arg = settings, str(root)
    code, _ = live(whole_life, arg, share*parts_of(whole)[1][part], part)
    last, exported = parts_of(root)[0][-1], (root/'export').exists()
    if exported: assert contents(root/'export') == contents(whole/'export')  # whole, or not there
    assert live(whole_life, arg)[0] == 0
    same(load_run(whole/'run'), load_run(root/'run'))
    assert contents(root/'export') == contents(whole/'export')
    assert {o.name for o in root.iterdir()} == {'run', 'export', 'parts'}
    return code, last, exported
