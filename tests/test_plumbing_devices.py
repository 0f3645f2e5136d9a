"Devices and precision by name; one type of device in a process, and a sentence otherwise."
import subprocess
import sys

import pytest
import torch

from sae_ft.plumbing import devices
from sae_ft.plumbing.devices import autocast, pick_device

class OnGPU:
    "accelerate in a process that has begun on a GPU: it refuses a CPU, and gives the GPU again."
    device = torch.device('cuda')
    def __init__(self, cpu=False, **how):
        if cpu: raise ValueError('one of its own')

class OnCPU:
    "accelerate in a process that has begun on a CPU: it gives that again, whatever is asked for."
    device = torch.device('cpu')
    def __init__(self, cpu=False, **how): pass

@pytest.mark.parametrize('begun,asked', [(OnGPU, 'cpu'), (OnCPU, 'meta')], ids=['cpu second', 'cpu first'])
def test_another_type_of_device_is_refused(begun, asked, monkeypatch):
    monkeypatch.setattr(devices, 'Accelerator', begun)
    with pytest.raises(ValueError) as error: devices.accelerator(asked)
    assert str(error.value) == (
        f"this process has begun with device '{begun.device.type}', and accelerate keeps one in a process: "
        f"restart it to use '{asked}'.")

def test_the_same_device_is_given_again(monkeypatch):
    monkeypatch.setattr(devices, 'Accelerator', OnCPU)
    assert devices.accelerator('cpu').device.type == devices.accelerator('cpu').device.type == 'cpu'

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_accelerate_itself_keeps_one():
    code = ("from sae_ft.plumbing.devices import accelerator\n"
            "print(accelerator('{}').device.type)\naccelerator('{}')")
    for first, second in (('cpu', 'cuda'), ('cuda', 'cpu')):
        words = [sys.executable, '-c', code.format(first, second)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.stdout.strip() == first and f"has begun with device '{first}'" in done.stderr

def test_device_and_precision():
    assert pick_device('cpu').type == 'cpu' and pick_device('auto').type in ('cpu', 'cuda')
    with pytest.raises(ValueError, match="device 'tpu9'") as e: pick_device('tpu9')
    assert '\n' not in str(e.value) and len(str(e.value)) < 400
    with pytest.raises(ValueError, match='known are auto, fp32, bf16'):
        with autocast('cpu', 'fp16'): pass
    a = torch.randn(8, 8)
    for precision, dtype in dict(fp32=torch.float32, bf16=torch.bfloat16).items():
        with autocast('cpu', precision): assert (a @ a).dtype == dtype
