"""What a million pictures cost: memory of an embedding store and of an SAE's training, seconds to list files.

    python tests/bench/scale.py [share] [width]

Embeddings are random, 1.28 million of length 512 (or `width`) for a share of 1. Two processes write them into
blocks; one ends half-way, and what is missing is made. An SAE (four times as many features, k = d/16) is
trained on them for one epoch, and measured. As many are embedded before and after a made-up drift, answered
among 1,000 classes, compared and averaged, as a run judges its splits. Then as many empty files in 1,000
folders are listed, named and given a fingerprint as a run does it, by a new process each time. Prints one
JSON line; memory is what this process has of its own (files that are mapped are the store's)."""
import json, multiprocessing, os, re, shutil, subprocess, sys, tempfile, threading, time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from sae_ft.drift_measures import measure_drift
from sae_ft.embeddings import embed_kept, room_for
from sae_ft.evaluation import answer
from sae_ft.plumbing import blocks as module
from sae_ft.plumbing import listing
from sae_ft.plumbing.blocks import Blocks
from sae_ft.plumbing.cache import Cache
from sae_ft.sae_train import measure, train_sae
from sae_ft.screening_later import look_later
from sae_ft.sources_layouts import class_folders

PICTURES, CLASSES = 1_280_000, 1000

class Memory:
    "The most gigabytes that this process has of its own while it is open, seen ten times a second (Linux)."
    def __enter__(self):
        self.most, self.stop = 0., threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.stop.wait(.1):
            own = re.search(r'RssAnon:\s+(\d+)', Path('/proc/self/status').read_text())
            self.most = max(self.most, int(own[1])/2**20)

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()

def store(folder, n, d): return Blocks(folder, dict(what='random'), n)

def write(folder, n, d, part, of, until=None):
    "Write a share of the blocks, or as many of it as that."
    torch.set_num_threads(1)
    blocks = store(folder, n, d)
    for start in blocks.missing(part, of)[:until]:
        g = torch.Generator().manual_seed(start)
        z = torch.randn(blocks.length(start), d, generator=g)
        blocks.write(start, z=z, y=torch.zeros(len(z), dtype=torch.long))

def embeddings(folder, n, d):
    "Two writers, one cut off half-way; then one that makes the rest."
    spawn = multiprocessing.get_context('spawn')
    half = len(store(folder, n, d).starts)//4
    shares = (folder, n, d, 0, 2), (folder, n, d, 1, 2, half)
    jobs = [spawn.Process(target=write, args=o) for o in shares]
    for o in jobs: o.start()
    for o in jobs: o.join()
    missing = len(store(folder, n, d).missing())
    write(folder, n, d, 0, 1)
    return missing

def train(folder, n, d):
    "Train an SAE from the blocks; counts how often a block is read as a whole before the first step."
    blocks, reads = store(folder, n, d), {}
    whole = module.Blocks.read
    def read(self, start):
        reads[start] = reads.get(start, 0) + 1
        return whole(self, start)
    module.Blocks.read = read
    t = time.perf_counter()
    sae, history = train_sae(blocks, 4, max(1, d//16), epochs=1, progress=False)
    seconds, most = time.perf_counter() - t, max(reads.values())
    module.Blocks.read = whole
    return sae, history[-1]['fvu'], seconds, most

class Rows(torch.utils.data.Dataset):
    "Random vectors and labels, each made when it is asked for."
    def __init__(self, n, d): self.n, self.d = n, d
    def __len__(self): return self.n
    def __getitem__(self, i):
        return torch.randn(self.d, generator=torch.Generator().manual_seed(i)), i % CLASSES

def judge(folder, n, d, sae):
    "Embeddings before and after, answers, drift, and the averages of both; bytes of embeddings."
    torch.manual_seed(0)
    model = nn.Linear(d, d), nn.Linear(d, CLASSES)
    head, data = SimpleNamespace(head=model[1], classify=model[1]), Rows(n, d)
    how = dict(every=1e9, device='cpu', precision='fp32', progress=False)
    (z0, y), (z, _) = (embed_kept(encode, data, folder/name, **how)
                       for name, encode in (('before', lambda x: x), ('after', model[0])))
    mean = torch.add(z0, z, out=room_for(n, d, folder)).div_(2)
    for o in (z0, z, mean): answer(head, o)
    for o in (z, mean): measure_drift(sae, z0, o, y >= 0)
    return sum(o.nbytes for o in (z0, z, mean))

def touch(root, n):
    "Empty files in class folders."
    for c in range(CLASSES):
        folder = root/f'n{c:08d}'
        folder.mkdir(parents=True)
        for i in range(c*n//CLASSES, (c + 1)*n//CLASSES): os.close(os.open(folder/f'{i}.JPEG', os.O_CREAT))

def start_up(root, cache):
    "List the files, make the data set, look at its names; seconds, files, folders that were read."
    read, whole = [], listing._read_folder
    listing._read_folder = lambda path, endings: read.append(path) or whole(path, endings)
    t = time.perf_counter()
    ds = class_folders(root, Cache(cache))
    look_later(dict(train=ds))
    print(json.dumps([time.perf_counter() - t, len(ds), len(read)]))

def in_new_process(root, cache):
    words = [sys.executable, __file__, 'start_up', str(root), str(cache)]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

def round_(x): return round(x, 2)

def main(share=1., d=512):
    n = round(PICTURES*share)
    place = Path(tempfile.mkdtemp(prefix='sae_ft-scale-'))
    try:
        with Memory() as writing:
            t = time.perf_counter()
            missing = embeddings(place/'z', n, d)
            wrote = time.perf_counter() - t
        with Memory() as training: sae, fvu, seconds, reads = train(place/'z', n, d)
        with Memory() as measuring: held = measure(sae, store(place/'z', n, d))['fvu']
        shutil.rmtree(place/'z')
        with Memory() as judging: judged = judge(place, n, d, sae)
        touch(place/'suite', n)
        time.sleep(3)  # a folder that changed a moment ago is read again
        starts = [in_new_process(place/'suite', place/'cache') for _ in range(2)]
    finally: shutil.rmtree(place)
    (first, files, read), (second, same, again) = starts
    print(json.dumps(dict(
        pictures=n, width=d, cores=len(os.sched_getaffinity(0)), made_after_one_ended=missing,
        store_gb=round_(n*d*4/2**30), writing_gb=round_(writing.most), writing_s=round_(wrote),
        training_gb=round_(training.most), training_s=round_(seconds), measuring_gb=round_(measuring.most),
        judged_gb=round_(judged/2**30), judging_gb=round_(judging.most),
        reads_of_a_block_at_the_start=reads, fvu=round_(fvu), fvu_measured=round_(held),
        files=files, first_start_s=round_(first), folders_read=read, second_start_s=round_(second),
        folders_read_again=again, same_files=files == same)))

if __name__ == '__main__':
    if sys.argv[1:2] == ['start_up']: start_up(*map(Path, sys.argv[2:]))
    else: main(*(f(o) for f, o in zip((float, int), sys.argv[1:])))
