"Checkpoints: files of earlier versions, and one text for what they are of."
import json, os, signal

import pytest
import torch

from sae_ft.plumbing.faults import Stopped
from sae_ft.plumbing.files import read_tensors, write_tensors
from sae_ft.plumbing.resume import Checkpoint, kept_on_stop

def test_the_file_is_that_of_earlier_versions(tmp_path):
    path = tmp_path/'x.safetensors'
    write_tensors(path, {'sae/': torch.ones(2)}, about=json.dumps(dict(what=dict(lam=1.), step=3)))
    tensors, place = Checkpoint(path).load(dict(lam=1.), ('step',))
    assert place == dict(what=dict(lam=1.), step=3) and list(tensors) == ['sae/']
    Checkpoint(tmp_path/'y.safetensors').save(dict(sae=torch.ones(2)), what=dict(lam=1.), step=3)
    assert read_tensors(tmp_path/'y.safetensors')[1] == read_tensors(path)[1]

def test_the_first_difference_is_named(tmp_path):
    kept = Checkpoint(tmp_path/'x.safetensors')
    kept.save({}, what=dict(lam=1., seed=0, size=(8, 8)))
    with pytest.raises(ValueError) as error: kept.load(dict(lam=2., seed=7, size=(8, 8)))
    assert str(error.value) == (
        f"the checkpoint '{kept.path}' is of something else (lam was 1.0 and is 2.0): "
        'delete it, or choose another place.')
    assert kept.load(dict(lam=1., seed=0, size=[8, 8])) and kept.load()

def test_it_is_kept_before_the_sentence_is_made():
    done = []
    with pytest.raises(Stopped) as error:
        with kept_on_stop(lambda: done.append('kept'), lambda: f' when {done[-1]}.') as stop:
            with stop.held():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append('whole')
    assert done == ['whole', 'kept'] and str(error.value) == 'stopped by SIGTERM when kept.'
    assert error.value.code == 143
