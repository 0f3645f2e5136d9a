"The device and the precision, by name."
import pytest
import torch

from sae_ft.plumbing.devices import autocast, pick_device


def test_device_and_precision():
    assert pick_device('cpu').type == 'cpu' and pick_device('auto').type in ('cpu', 'cuda')
    with pytest.raises(ValueError, match="device 'tpu9'") as e: pick_device('tpu9')
    assert '\n' not in str(e.value) and len(str(e.value)) < 400
    with pytest.raises(ValueError, match='known are auto, fp32, bf16'):
        with autocast('cpu', 'fp16'): pass
    a = torch.randn(8, 8)
    for precision, dtype in dict(fp32=torch.float32, bf16=torch.bfloat16).items():
        with autocast('cpu', precision): assert (a @ a).dtype == dtype
