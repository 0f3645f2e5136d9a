"Embedding a whole data set, on any device. What a kill leaves is in the tests of faults."
import pytest
import torch
import torch.nn.functional as F
from tiny_clip import TEMPLATES, WORDS

from sae_ft.clip import load_clip, zero_shot
from sae_ft.embeddings import embed, embed_kept


def test_embed(tiny):  # noqa: F811
    m = zero_shot(load_clip(f'local-dir:{tiny}'), WORDS, TEMPLATES)
    data = [(torch.randn(3, 32, 32), i % 3) for i in range(10)]
    z, y = embed(m.encode, data, batch_size=4, precision='fp32', progress=False)
    z1, _ = embed(m.encode, data, batch_size=10, precision='fp32', progress=False, workers=1)
    assert z.shape == (10, 32) and z.dtype == torch.float32 and not z.requires_grad
    assert y.tolist() == [i % 3 for i in range(10)]
    assert torch.allclose(z, z1, atol=1e-5)
    with pytest.raises(ValueError, match='empty'): embed(m.encode, [])


def test_embeddings_of_other_contents_do_not_mix(tmp_path):
    data, how = [(torch.ones(2), 0)]*4, dict(batch_size=2, precision='fp32', progress=False)
    embed_kept(lambda x: x, data, tmp_path, dict(weights='a'), **how)
    with pytest.raises(ValueError, match="weights is 'a' there and 'b' here"):
        embed_kept(lambda x: x, data, tmp_path, contents=dict(weights='b'), **how)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_gpu_agrees_with_cpu():
    m = zero_shot(load_clip(), WORDS, TEMPLATES)
    data = [(torch.randn(3, 64, 64), 0) for _ in range(32)]
    z, _ = embed(m.encode, data, precision='fp32', progress=False)
    for precision, least in dict(fp32=.999, bf16=.98).items():
        on_gpu, _ = embed(m.cuda().encode, data, device='cuda', precision=precision, progress=False)
        assert F.cosine_similarity(z, on_gpu).min() > least
