"""The straightforward loop that most research code has: what `speed.py` compares with.

Nothing here is of the package. Pictures are decoded and cropped by open_clip's PIL transforms at every visit,
a second, frozen tower runs beside the tuned one, everything is fp32, each term of a price encodes z and z0
for itself, codes are decoded densely, and each number of a step is read by `.item()`."""
import io, math, time
from copy import deepcopy

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

class Pictures(Dataset):
    "(transform(picture), label) of encoded pictures."
    def __init__(self, raw, labels, transform): self.raw, self.labels, self.transform = raw, labels, transform
    def __len__(self): return len(self.raw)
    def __getitem__(self, i):
        return self.transform(Image.open(io.BytesIO(self.raw[i])).convert('RGB')), self.labels[i]

def load(model, pretrained, device):
    "Image tower, and transforms for training and evaluation."
    net, train_tf, eval_tf = open_clip.create_model_and_transforms(model, pretrained, device=device)
    return net.visual.eval(), train_tf, eval_tf

def wait(device):
    "Until the device has done all that it was given."
    if device.type == 'cuda': torch.cuda.synchronize(device)

@torch.no_grad()
def embed(visual, pictures, device, batch=256):
    "(N, d) embeddings."
    return torch.cat([visual(x.to(device)).cpu() for x, _ in DataLoader(pictures, batch)])

# --- prices of moving from z0 to z: {name: scalar}
def plain(z, z0, taps, sae): return {}

def l2(z, z0, taps, sae):
    return dict(l2=(F.normalize(z, dim=-1) - F.normalize(z0, dim=-1)).pow(2).sum(-1).mean())

def ldifs(z, z0, taps, sae):
    gaps = []
    for h, h0 in zip(*taps):
        dim = 1 if h.ndim == 4 else -1
        gaps.append((F.normalize(h, dim=dim) - F.normalize(h0, dim=dim)).pow(2).mean())
    return dict(ldifs=sum(gaps)/len(gaps))

def residual(z, z0, sae):
    u, u0 = F.normalize(z, dim=-1), F.normalize(z0, dim=-1)
    s, s0 = sae.encode(u), sae.encode(u0)
    return ((u - u0) - (sae.decode(s) - sae.decode(s0))).pow(2).sum(-1).mean()

def preservation(z, z0, sae):
    s, s0 = sae.encode(F.normalize(z, dim=-1)), sae.encode(F.normalize(z0, dim=-1))
    return (s.abs()*(s0 == 0)).sum(-1).mean()

def sae_ft(z, z0, taps, sae):
    return dict(residual=3*residual(z, z0, sae), preservation=3*preservation(z, z0, sae))

PRICES = {'ft': plain, 'l2': l2, 'ldifs': ldifs, 'sae-ft': sae_ft}

def stages(visual):
    "The submodules whose outputs LDIFS compares."
    if hasattr(visual, 'layer4'):
        return [visual.avgpool, visual.layer1, visual.layer2, visual.layer3, visual.layer4, visual]
    blocks = visual.transformer.resblocks
    return [*(blocks[len(blocks)*q//4 - 1] for q in (1, 2, 3, 4)), visual]

def tap(visual):
    "A list that gets the outputs of the stages at each forward pass; clear it before."
    seen = []
    for m in stages(visual): m.register_forward_hook(lambda _, __, h: seen.append(h))
    return seen

def fine_tune(visual, W, pictures, method, device, sae=None, batch=64, epochs=3, lr=1e-3):
    "Tune tower and head; returns the seconds of each step (without the loader's), and of the whole."
    begun = time.perf_counter()
    price, visual, head = PRICES[method], deepcopy(visual), nn.Linear(*W.T.shape).to(device)
    head.weight.data.copy_(W)
    frozen = deepcopy(visual).eval().requires_grad_(False) if price is not plain else None
    taps = (tap(visual), tap(frozen)) if price is ldifs else ()
    params = [*visual.parameters(), *head.parameters()]
    opt = torch.optim.AdamW(params, lr=lr, weight_decay=.1)
    loader = DataLoader(pictures, batch, shuffle=True, num_workers=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, epochs*len(loader))
    took = []
    for _ in range(epochs):
        for x, y in loader:
            x, y, t = x.to(device), y.to(device), time.perf_counter()
            for o in taps: o.clear()
            z, z0 = visual(x), None
            if frozen is not None:
                with torch.no_grad(): z0 = frozen(x)
            ce = F.cross_entropy(head(F.normalize(z, dim=-1)), y)
            parts = price(z, z0, taps, sae)
            loss = ce + sum(parts.values())
            opt.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(params, 1.)
            opt.step()
            schedule.step()
            seen = {k: o.item() for k, o in dict(parts, loss=loss, ce=ce, norm=norm).items()}
            wait(device)
            took.append(time.perf_counter() - t)
            if not math.isfinite(seen['loss']): raise FloatingPointError(f"the loss became {seen['loss']}")
    return took, time.perf_counter() - begun

class DenseSAE(nn.Module):
    "Top-k SAE of unit embeddings u: codes are dense, and so is decoding."
    def __init__(self, d, n, k):
        super().__init__()
        self.k, self.encoder, self.decoder = k, nn.Linear(d, n, bias=False), nn.Linear(n, d, bias=False)
        self.b_pre = nn.Parameter(torch.zeros(d))
        nn.init.normal_(self.decoder.weight)
        self.unit_columns()
        self.encoder.weight.data = self.decoder.weight.data.T.clone()

    def unit_columns(self): self.decoder.weight.data = F.normalize(self.decoder.weight.data, dim=0)
    def pre(self, u): return self.encoder(u - self.b_pre)
    def top(self, p, k):
        v, i = p.relu().topk(k, dim=-1)
        return torch.zeros_like(p).scatter(-1, i, v)
    def encode(self, u): return self.top(self.pre(u), self.k)
    def decode(self, s): return self.decoder(s) + self.b_pre
    def forward(self, u): return self.decode(self.encode(u))

def revive(sae, p, e, dead):
    "FVU of the error, rebuilt from dead features alone (Gao et al. 2024, appendix A.2)."
    k = min(sae.decoder.weight.shape[0]//2, dead.sum().item())
    e = e.detach()
    e_hat = sae.decoder(sae.top(p.masked_fill(~dead, 0.), k))
    return (e - e_hat).pow(2).sum()/(e - e.mean(0)).pow(2).sum()

def train_sae(z, n, k, epochs, device, batch=1024, lr=5e-3, seed=0):
    "The recipe of the package: the same loss, schedule, batches and optimiser; returns SAE and seconds."
    begun = time.perf_counter()
    torch.manual_seed(seed)
    u = F.normalize(z, dim=-1)                               # (N, d)
    sae, var = DenseSAE(z.shape[1], n, k).to(device), u.var(0, correction=0).sum().to(device)
    sae.b_pre.data = u.mean(0).to(device)
    opt = torch.optim.AdamW(sae.parameters(), lr=lr, weight_decay=0.)
    loader = DataLoader(TensorDataset(u), batch, shuffle=True)
    silent, step, steps = torch.zeros(n, device=device), 0, epochs*len(loader)
    for _ in range(epochs):
        total, on = 0., 0.
        for x, in loader:
            x = x.to(device)
            for g in opt.param_groups: g['lr'] = lr*min(1., 3*(steps - step)/steps)
            p = sae.pre(x)                                   # (B, n)
            s = sae.top(p, k)                                # (B, n)
            e = x - sae.decode(s)                            # (B, d)
            loss = e.pow(2).sum(1).mean()/var
            dead = silent >= len(u)
            if dead.any(): loss = loss + revive(sae, p, e, dead)/32
            opt.zero_grad()
            loss.backward()
            D, g = sae.decoder.weight.data, sae.decoder.weight.grad
            g -= D*(D*g).sum(0)
            opt.step()
            sae.unit_columns()
            silent += len(x)
            silent[(s != 0).any(0)] = 0
            total, on, step = total + loss.item(), on + (s != 0).sum().item(), step + 1
    wait(device)
    return sae, time.perf_counter() - begun
