"A tiny CLIP in open_clip's folder layout, for tests."
import gzip
import json
from types import SimpleNamespace

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from sae_ft.crops import View

RESNET = dict(embed_dim=32, vision_cfg=dict(image_size=32, layers=[1, 1, 1, 1], width=8),
              text_cfg=dict(context_length=12, vocab_size=1000, width=32, heads=2, layers=1))
VIT = RESNET | dict(vision_cfg=dict(image_size=32, layers=2, width=32, head_width=16, patch_size=16))
def tower(size=32, **how):
    "What a View needs of an image tower."
    return SimpleNamespace(preprocess_cfg=dict(size=size, mean=[.5]*3, std=[.5]*3, **how))


VIEW = View(tower())

def random_vit_b32(folder):
    "A file in a folder: the weights of a ViT-B/32, drawn at random."
    torch.manual_seed(0)
    file = folder/'random.safetensors'
    save_file({k: v.half() for k, v in open_clip.create_model('ViT-B-32').state_dict().items()}, file)
    return str(file)
WORDS, TEMPLATES = ['cat', 'dog', 'boat'], ['a {}.', 'an icon of a {}.']


def weights(cfg):
    torch.manual_seed(0)
    return open_clip.model.CLIP(**json.loads(json.dumps(cfg))).state_dict()


def make_tiny(folder):
    "A `local-dir:` folder with its own vocabulary of 1000 tokens and fp16 weights."
    merges = gzip.open(open_clip.tokenizer.default_bpe()).read().decode().split('\n')[:1000 - 512 - 2 + 1]
    with gzip.open(folder/'bpe.txt.gz', 'wb') as f: f.write('\n'.join(merges).encode())
    model = json.loads(json.dumps(RESNET))
    model['text_cfg']['tokenizer_kwargs'] = {'bpe_path': 'bpe.txt.gz'}
    cfg = dict(model_cfg=model, preprocess_cfg={'mean': [.5]*3, 'std': [.5]*3})
    (folder/'open_clip_config.json').write_text(json.dumps(cfg))
    half = {k: v.half() if v.is_floating_point() else v for k, v in weights(RESNET).items()}
    save_file(half, folder/'open_clip_model.safetensors')
    return folder

@pytest.fixture(scope='session')
def tiny(tmp_path_factory): return make_tiny(tmp_path_factory.mktemp('tiny'))
