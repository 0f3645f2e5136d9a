"""Memory and time of recording all tokens after all blocks of iconclip-vit.

    python tests/bench/inside.py [pictures]

Pictures (50,000 unless said) are random. Prints one JSON line: most gigabytes that this process has of its
own (files that are mapped are the store's), before the first picture and while recording; gigabytes of the
store; pictures a second."""
import json, shutil, sys, tempfile, time
from pathlib import Path

import torch
from scale import Memory

from sae_ft.activations import points
from sae_ft.clip import load_clip
from sae_ft.inside_activations import record

class RandomPictures:
    "So many pictures, each from a seed of its own."
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i):
        if i >= self.n: raise IndexError(i)
        return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(i))*2 - 1, 0

def main(n):
    visual = load_clip('iconclip-vit').model.visual.eval().requires_grad_(False)
    names, folder = [k for k in points(visual) if k.startswith('resid_post')], tempfile.mkdtemp()
    try:
        with Memory() as before: time.sleep(1)
        start = time.perf_counter()
        with Memory() as during:
            found = record(visual, RandomPictures(n), names, folder, batch_size=256)
        spent = time.perf_counter() - start
        assert all(len(o) == n*65 for o in found.values())
        size = sum(o.stat().st_size for o in Path(folder).rglob('*') if o.is_file())
        print(json.dumps(dict(pictures=n, points=len(names), gb_before=round(before.most, 2),
                              gb_recording=round(during.most, 2), gb_store=round(size/2**30, 2),
                              pictures_per_second=round(n/spent))))
    finally: shutil.rmtree(folder)

if __name__ == '__main__': main(int((sys.argv[1:] or ['50000'])[0]))
