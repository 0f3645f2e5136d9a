"Recording: what is in the store, how it goes on, and how much memory it takes."
import psutil
import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet

from sae_ft.activations import Hooks, Taps, points
from sae_ft.inside_activations import on_tokens, positions, prefix_tokens, record, tokens_of
from sae_ft.plumbing.faults import Stopped
from sae_ft.plumbing.store import Store
from tiny_towers import QUIET, Noise, vit

def test_what_is_stored_is_what_passed(tmp_path):
    tower, pictures = vit(), Noise(7, 16)
    names = list(points(tower))
    found = record(tower, pictures, names, tmp_path, dtype=torch.float32, batch_size=3, **QUIET)
    with torch.no_grad(), Taps(tower, names) as taps: tower(torch.stack([pictures[i][0] for i in range(7)]))
    for name in names:
        x, picture, position = found[name].sample()
        assert torch.allclose(x.view(7, 5, -1), taps.last[name], atol=1e-6)
        assert picture.tolist() == [i for i in range(7) for _ in range(5)]
        assert position.tolist() == [*range(5)]*7 and len(found[name]) == 35

@pytest.mark.parametrize('tokens, each', [('cls', 1), ('patches', 4), ('all', 5)])
def test_a_sample_of_tokens_is_the_same_part_of_all_of_them(tokens, each, tmp_path):
    tower, pictures, name = vit(), Noise(6, 16), 'resid_post.1'
    whole = record(tower, pictures, [name], tmp_path/'all', batch_size=4, **QUIET)[name]
    whole = whole.sample()[0].view(6, 5, -1)
    for m in (None, 2):
        part = record(tower, pictures, [name], tmp_path/str(m), tokens, m, batch_size=4, **QUIET)[name]
        x, picture, position = part.sample()
        assert len(x) == 6*min(each, m or 5)
        assert torch.equal(x, whole[picture, position])
        if tokens == 'cls': assert not position.any()
        if tokens == 'patches': assert position.all()

def test_a_recording_that_was_stopped_goes_on_to_the_same_bits(tmp_path):
    tower, pictures, names = vit(), Noise(20, 16), ['resid_pre.0', 'mlp_act.1']
    how = dict(tokens='patches', per_picture=2, batch_size=2, most_mb=0, **QUIET)
    whole = record(tower, pictures, names, tmp_path/'whole', **how)
    pictures.stop_at = 11
    with pytest.raises(Stopped, match='10 of 20 pictures are recorded'):
        record(tower, pictures, names, tmp_path/'parts', **how)
    pictures.stop_at = None
    (tmp_path/'parts'/'mlp_act.1'/f'{16:09d}.safetensors').unlink()  # one point lags
    parts = record(tower, pictures, names, tmp_path/'parts', **how)
    for k in names:
        assert all(torch.equal(a, b) for a, b in zip(whole[k].sample(), parts[k].sample()))

def test_memory_does_not_grow_with_the_pictures(tmp_path, monkeypatch):
    tower, process, seen = vit(64, 4, 32, 4), psutil.Process(), []
    write = Store.write
    def watched(store, *args):
        seen.append(process.memory_info().rss)
        write(store, *args)
    monkeypatch.setattr(Store, 'write', watched)
    names = [k for k in points(tower) if not k.startswith('mlp_act')]
    found = record(tower, Noise(1000, 32), names, tmp_path, batch_size=50, most_mb=4, **QUIET)
    stored = sum(f.stat().st_size for o in found.values() for f in o.store.folder.glob('*.safetensors'))
    later = seen[len(seen)//4:]                              # the first batches fill what is reused
    assert stored > 90e6 and max(later) - min(later) < 30e6

def test_maps_are_tokens_row_by_row_and_go_back():
    torch.manual_seed(0)
    tower = ModifiedResNet([1, 1, 1, 1], output_dim=6, heads=2, image_size=64, width=4).eval()
    h = torch.randn(2, 5, 3, 4)
    assert torch.equal(tokens_of(h)[1, 4*2 + 3], h[1, :, 2, 3])
    assert torch.equal(on_tokens(lambda t: 2*t)(h), 2*h) and prefix_tokens(tower) == 0
    seen = []
    with torch.no_grad(), Hooks(tower, {'resid_post.0': on_tokens(lambda t: seen.append(t.shape) or t)}):
        tower(torch.randn(2, 3, 64, 64))
    assert seen == [(2, 256, 16)]

@pytest.mark.parametrize('bad, said', [
    (dict(tokens='cls', L=4), 'no tokens of the kind'),
    (dict(tokens='head', L=4), "unknown kind of tokens 'head'"),
    (dict(per_picture=0, L=4), 'per_picture is 0')])
def test_what_cannot_be_drawn_is_said(bad, said):
    with pytest.raises(ValueError, match=said) as error: positions(torch.nn.Identity(), start=0, N=1, **bad)
    assert '\n' not in str(error.value)
