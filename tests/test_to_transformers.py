"The same CLIP for transformers: the same logits from the folder of an export."
import json

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from sae_ft.clip import load_clip
from sae_ft.experiment import run
from sae_ft.export import export
from sae_ft.settings import Config
from sae_ft.to_transformers import as_transformers

def vit(folder, quick_gelu=True):
    "An open_clip folder of a small CLIP with random weights, of OpenAI's architecture."
    cfg = dict(embed_dim=32, quick_gelu=quick_gelu,
               vision_cfg=dict(image_size=32, layers=2, width=64, head_width=32, patch_size=8),
               text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2))
    torch.manual_seed(0)
    net = open_clip.model.CLIP(**cfg)
    folder.mkdir()
    mean, std = [.5]*3, [.25]*3
    pictures = dict(mean=mean, std=std, interpolation='bicubic', resize_mode='shortest')
    (folder/'open_clip_config.json').write_text(json.dumps(dict(model_cfg=cfg, preprocess_cfg=pictures)))
    weights = {k: v.contiguous().clone() for k, v in net.state_dict().items()}
    save_file(weights, folder/'open_clip_model.safetensors')
    return folder

def test_transformers_gives_the_same_logits(pictures, tmp_path):
    transformers = pytest.importorskip('transformers')
    model = vit(tmp_path/'vit')
    cfg = Config(model=f'local-dir:{model}', dataset=pictures, epochs=1, batch_size=8, sae_epochs=2, k=2,
                 lr=1e-3, precision='fp32', device='cpu', cache=None, out_dir=str(tmp_path/'run'))
    folder = export(run(cfg, progress=False), tmp_path/'out')
    clip = load_clip(f'local-dir:{folder}')
    theirs = transformers.CLIPModel.from_pretrained(folder/'transformers').eval()
    picture, words = Image.open(f'{pictures}/cat/0.png').convert('RGB'), ['a cat', 'a photo of a dog', 'tree']
    tokens, x = clip.tokenizer(words), clip.eval_tf(picture)[None]
    with torch.no_grad():
        want = clip.model(x, tokens)
        want = want[2]*want[0] @ want[1].T
        got = theirs(pixel_values=x, input_ids=tokens).logits_per_image
    assert torch.allclose(got, want, atol=1e-4*want.abs().max().item() + 1e-4)
    processor = transformers.CLIPImageProcessor.from_pretrained(folder/'transformers')
    seen = processor(picture, return_tensors='pt')['pixel_values']
    assert seen.shape == x.shape and (seen - x).abs().max() < .1  # two libraries' resizing

OTHERS = [dict(vision_cfg=dict(layers=[3, 4, 6, 3])), dict(vision_cfg=dict(layers=12, timm_model_name='vit')),
          dict(vision_cfg=dict(layers=12), custom_text=True),
          dict(vision_cfg=dict(layers=12), text_cfg=dict(embed_cls=True))]

@pytest.mark.parametrize('cfg', OTHERS, ids=range(len(OTHERS)))
def test_other_architectures_are_not_converted(cfg):
    names = 'visual.class_embedding', 'visual.proj', 'text_projection', 'positional_embedding'
    assert as_transformers(dict(model_cfg=cfg), dict.fromkeys(names)) is None
