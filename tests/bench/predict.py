"""Pictures a second of `Tuned.predict` on a folder, against embedding the same pictures alone.

    python tests/bench/predict.py [--pictures 1000] [--rounds 3] [--device cuda]

A small run is made and exported, and pictures of the embedded default are written into a folder, a file each.
`predict` finds the files, reads and decodes them, encodes, answers, and makes a table. Embedding alone is
done twice: by `embed_splits`, as in a run, of the pictures' bytes in memory, and by `reference.embed`, the
loop most code has. Sides take turns, and the fastest round of each counts. The last line is one JSON object:

    predict, embed, reference   pictures a second
    predict_ratio               predict / embed: 1 where the folder and the answers cost nothing
    predict_ratio_reference     predict / reference"""
import argparse, json, tempfile, time
from pathlib import Path

import reference
from sae_ft.data import undecoded
from sae_ft.evaluation import embed_splits
from sae_ft.experiment import run
from sae_ft.export import export
from sae_ft.plumbing.devices import pick_device
from sae_ft.settings import Config
from sae_ft.suites import load_suite
from sae_ft.tuned import Tuned

def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('--pictures', type=int, default=1000, help='at most 7846')
    p.add_argument('--rounds', type=int, default=3, help='of which the fastest counts')
    p.add_argument('--device', default='auto')
    return p.parse_args()

def exported(folder, device):
    "An export of a run that is as small as can be: what it knows does not matter here."
    cfg = Config(limit=64, epochs=1, sae_epochs=3, device=device, cache=None, out_dir=f'{folder}/run')
    return export(run(cfg, progress=False), f'{folder}/export')

def written(ds, folder):
    "The pictures, a file each; their bytes."
    folder.mkdir()
    raw = [o['image']['bytes'] for o in undecoded(ds)]
    for i, o in enumerate(raw): (folder/f'{i:06}.png').write_bytes(o)
    return raw

def seconds(f):
    t = time.perf_counter()
    f()
    return time.perf_counter() - t

def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as tmp:
        to = exported(tmp, args.device)
        tuned, data = Tuned.load(to, device=args.device), load_suite(progress=False).train
        data, device = data.select(range(args.pictures)), pick_device(args.device)
        raw, folder = written(data, Path(tmp)/'pictures'), Path(tmp)/'pictures'
        visual, _, eval_tf = reference.load(f'local-dir:{to}', None, device)
        pictures = reference.Pictures(raw, data['label'][:], eval_tf)
        classifier, cfg = tuned.classifier, Config(device=args.device, cache=None)
        def embedded():  # a data set of its own each time, of which nothing is kept
            embed_splits(classifier, dict(all=data.select(range(len(data)))), cfg, progress=False)
        sides = dict(
            predict=lambda: tuned.predict(folder, progress=False),
            embed=embedded,
            reference=lambda: reference.embed(visual, pictures, device))
        took = [{k: seconds(f) for k, f in sides.items()} for _ in range(args.rounds)]
    rate = {k: len(data)/min(o[k] for o in took) for k in sides}
    ratios = dict(predict_ratio=rate['predict']/rate['embed'],
                  predict_ratio_reference=rate['predict']/rate['reference'])
    print(json.dumps({k: round(v, 1) for k, v in rate.items()} | {k: round(v, 3) for k, v in ratios.items()}))

if __name__ == '__main__': main()
