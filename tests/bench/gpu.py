"""How many pictures a second CLIPs tune and embed on this device, and in how much memory.

    python tests/bench/gpu.py [--device cuda] [--models ViT-B-16 ViT-L-14] [--batch 128] [--steps 20]

A step is the package's own (`batch_losses`, `update`) on pictures that are on the device already,
without reading them; weights are random, which takes as long. A row: model, precision, method;
pictures a second of tuning (median of the steps), memory at its peak, pictures a second of embedding.
The last line is JSON, for `11_paper_scale`."""
import argparse, json, time
from statistics import median

import open_clip
import torch

from reference import wait
from sae_ft.clip import Classifier, Clip
from sae_ft.losses import Zero
from sae_ft.methods import Context, CrossEntropy, get_method
from sae_ft.plumbing.devices import accelerator, autocast, pick_device
from sae_ft.sae import TopKSAE
from sae_ft.step import Watch, adamw, batch_losses, update
from sae_ft.trainer import Both

CLASSES, WARM = 1000, 4
METHODS = 'ft', 'sae-ft'

def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--device', default='auto')
    p.add_argument('--models', nargs='+', default=['ViT-B-16', 'ViT-L-14'], help='architectures of open_clip')
    p.add_argument('--precisions', nargs='+', default=['fp32', 'bf16'])
    p.add_argument('--batch', type=int, default=128, help='pictures a step')
    p.add_argument('--steps', type=int, default=20, help='that are timed')
    return p.parse_args()

def seconds_of(f, device, times):
    "Median seconds of a call, after some that warm it up."
    took = []
    for i in range(WARM + times):
        wait(device)
        t = time.perf_counter()
        f()
        wait(device)
        if i >= WARM: took.append(time.perf_counter() - t)
    return median(took)

def tuning(clip, method, precision, x, y, device):
    "One step of a method, as a function; the SAE is random, k = d/32."
    head = torch.nn.functional.normalize(torch.randn(CLASSES, clip.d), dim=1)
    classifier = Classifier(clip.model.visual, head, 100.).to(device).train()
    sae = TopKSAE(clip.d, 4*clip.d, clip.d//32).to(device).requires_grad_(False)
    ctx = Context(clip, classifier, ['a']*CLASSES, ['{}'], sae, None)
    row = get_method(method)
    reg = row.regulariser(ctx) if row.regulariser else Zero()
    classifier.head.requires_grad_(False)
    acc, watch = accelerator(str(device)), Watch(device)
    model = Both(classifier, CrossEntropy())
    opt = acc.prepare(adamw([p for p in model.parameters() if p.requires_grad], .1))
    @torch.no_grad()
    def frozen(x): return ctx.frozen.encode(x) if row.regulariser else None
    def step():
        found = batch_losses(model, frozen, reg, 1., x, y, device, precision)
        update(acc, [found['loss']], opt, 1e-6, 1., watch, 0)
        watch.seen.clear()
    return step

def embedding(clip, precision, x, device):
    "A forward pass, as a function."
    @torch.no_grad()
    def embed():
        with autocast(device, precision): clip.model.visual(x)
    return embed

def clip_of(name, device):
    "An architecture with random weights."
    model = open_clip.create_model(name, load_weights=False).to(device).eval()
    return Clip(model, None, None, None, name, None, model.visual.output_dim)

def peak(device): return torch.cuda.max_memory_allocated()/2**30 if device.type == 'cuda' else None

def main():
    args = arguments()
    device, rows = pick_device(args.device), []
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'
    for model in args.models:
        clip = clip_of(model, device)
        size = clip.model.visual.image_size
        x = torch.randn(args.batch, 3, *size, device=device)
        y = torch.randint(CLASSES, (args.batch,), device=device)
        for precision in args.precisions:
            embed = args.batch/seconds_of(embedding(clip, precision, x, device), device, args.steps)
            for method in METHODS:
                if device.type == 'cuda': torch.cuda.reset_peak_memory_stats()
                took = seconds_of(tuning(clip, method, precision, x, y, device), device, args.steps)
                rows.append(dict(
                    device=name, model=model, precision=precision, method=method, batch=args.batch,
                    tuning=args.batch/took, gigabytes=peak(device), embedding=embed))
                print(rows[-1], flush=True)
    print(json.dumps(rows))

if __name__ == '__main__': main()
