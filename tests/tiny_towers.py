"A tiny transformer, and pictures for it, for tests of what happens inside a tower."
import torch
from open_clip.transformer import VisionTransformer
from torch.utils.data import Dataset

from sae_ft.plumbing.faults import Stopped

QUIET = dict(precision='fp32', progress=False)

class Noise(Dataset):
    "Pictures of noise, made when asked for."
    def __init__(self, N, size): self.N, self.size, self.stop_at = N, size, None
    def __len__(self): return self.N
    def __getitem__(self, i):
        if i == self.stop_at: raise Stopped
        return torch.randn(3, self.size, self.size, generator=torch.Generator().manual_seed(i)), 0

def vit(width=8, layers=2, size=16, patch=8):
    torch.manual_seed(0)
    return VisionTransformer(size, patch, width=width, layers=layers, heads=2, mlp_ratio=2,
                             output_dim=6).eval()
