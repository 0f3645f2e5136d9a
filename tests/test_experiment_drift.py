"Drift after every epoch, as `sae_ft.experiment` measures it from the files that a run keeps."
import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from sae_ft.clip import Classifier
from sae_ft.drift_measures import measure_drift
from sae_ft.evaluation import embed_splits
from sae_ft.experiment import epoch_drift
from sae_ft.sae import TopKSAE
from sae_ft.settings import Config

class Tower(nn.Linear):
    "An image tower as small as can be."
    preprocess_cfg = dict(size=4, mode='RGB', mean=(.5,)*3, std=(.5,)*3,
                          interpolation='bicubic', resize_mode='shortest', fill_color=0)
    def forward(self, x): return super().forward(x.flatten(1))

def test_epoch_drift_is_the_drift_of_each_file_and_leaves_no_trace(tmp_path):
    torch.manual_seed(0)
    model, sae = Classifier(Tower(48, 6), torch.eye(6)), TopKSAE(6, k=2)
    pixels = np.random.default_rng(0).integers(0, 255, (20, 4, 4, 3), dtype=np.uint8)
    data = Dataset.from_dict(dict(image=[Image.fromarray(o) for o in pixels], label=[0]*20))
    cfg = Config(precision='fp32', device='cpu')
    def embedded(): return embed_splits(model, dict(a=data), cfg, progress=False)['a'][0]
    theta = {k: v.clone() for k, v in model.state_dict().items()}
    z0 = embedded()
    other = dict(theta, **{'visual.weight': torch.randn(6, 48)})
    files = {10: tmp_path/'epoch-10.safetensors', 2: tmp_path/'epoch-2.safetensors'}
    save_file(theta, files[2])
    save_file(other, files[10])
    still, moved = epoch_drift(files, model, sae, data, z0, cfg)
    assert (still.pop('epoch'), moved.pop('epoch')) == (2, 10)
    assert still == pytest.approx(measure_drift(sae, z0, z0))
    model.load_state_dict(other)
    assert moved == pytest.approx(measure_drift(sae, z0, embedded()))
    with pytest.raises(FileNotFoundError): epoch_drift({1: tmp_path/'none'}, model, sae, data, z0, cfg)
    assert all(torch.equal(v, other[k]) for k, v in model.state_dict().items())
