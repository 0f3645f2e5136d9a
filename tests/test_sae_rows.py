"SAEs from blocks on disk: the same as from memory where that is asked, and to the same bits after a cut."
import pytest
import torch

from sae_ft import sae_rows
from sae_ft.plumbing.blocks import Blocks
from sae_ft.plumbing.resume import Checkpoint
from sae_ft.sae import TopKSAE
from sae_ft.sae_kinds import SAES
from sae_ft.sae_rows import InMemory, OnDisk, in_order, rows_of, size_of_batches, width_of
from sae_ft.sae_train import fit_sae, measure, train_sae
from tiny_saes import data

def on_disk(folder, z, size=64):
    blocks = Blocks(folder, {}, len(z), size)
    for start in blocks.starts: blocks.write(start, z=z[start:start + size])
    return blocks

def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return all(torch.equal(a[o], b[o]) for o in a)

@pytest.fixture
def small(monkeypatch):
    "Pieces of 4 rows, windows of about 100, so that little data has many."
    monkeypatch.setattr(sae_rows, 'PIECE', 4)
    monkeypatch.setattr(sae_rows, 'WINDOW_ROWS', 100)

def test_which_it_is_follows_from_where_the_embeddings_are(tmp_path):
    z, sae = data(200), TopKSAE(12, 2, k=3)
    blocks = on_disk(tmp_path, z)
    assert type(rows_of(z, sae, 50)) is InMemory and type(rows_of(blocks, sae, 50)) is OnDisk
    assert width_of(z) == width_of(blocks) == 12
    assert [size_of_batches(n, 50) for n in (3, 200, 10_000)] == [1, 25, 50]

@pytest.mark.parametrize('kind', SAES)
def test_every_kind_learns_from_disk(kind, small, tmp_path):
    z = data(800, d=24)
    sae, history = train_sae(on_disk(tmp_path, z), 2, 4, epochs=20, progress=False, kind=kind)
    got, as_memory = measure(sae, z), train_sae(z, 2, 4, epochs=20, progress=False, kind=kind)[1]
    assert history[-1]['fvu'] < history[0]['fvu'] and got['fvu'] < .3 and 2.5 < got['l0'] < 5
    assert history[-1]['fvu'] == pytest.approx(as_memory[-1]['fvu'], abs=.06)

@pytest.mark.parametrize('kind', ['topk', 'jumprelu', 'batchtopk'])
@pytest.mark.parametrize('steps', [3, 8, 13])   # within a window, at the end of an epoch, in the next one
def test_a_training_from_disk_goes_on_to_the_same_bits(kind, steps, small, tmp_path):
    class Cut(Exception): pass
    class CutAt(Checkpoint):
        left = steps
        def save(self, *args, **kwargs):
            super().save(*args, **kwargs)
            self.left -= 1
            if not self.left: raise Cut
    how = dict(expansion=2, k=3, epochs=3, kind=kind, progress=False)
    blocks = on_disk(tmp_path/'z', data(300))
    whole, history = train_sae(blocks, **how)
    with pytest.raises(Cut): train_sae(blocks, **how, checkpoint=CutAt(tmp_path/'state', every=0.))
    kept = Checkpoint(tmp_path/'state', every=0.)
    again, lines = train_sae(on_disk(tmp_path/'z', data(300)), **how, checkpoint=kept)
    assert lines == history and equal(again, whole)
    other = on_disk(tmp_path/'other', 2*data(300))
    with pytest.raises(ValueError, match='is of something else'): train_sae(other, **how, checkpoint=kept)

def test_one_window_of_everything_is_training_from_memory(tmp_path, monkeypatch):
    "With pieces of one row, both draw the same order, but for the shuffling of what is drawn already."
    monkeypatch.setattr(sae_rows, 'PIECE', 1)
    monkeypatch.setattr(OnDisk, 'order', InMemory.order)
    monkeypatch.setattr(OnDisk, 'u', property(lambda self: range(len(self))), raising=False)
    def every(self): return self.normalised(self.blocks.take('z', torch.arange(len(self))))
    monkeypatch.setattr(OnDisk, 'some', property(every))
    z = data(300)
    makes = [TopKSAE(12, 2, k=3) for _ in range(2)]
    makes[1].load_state_dict(makes[0].state_dict())
    histories = [fit_sae(sae, o, epochs=3, progress=False)
                 for sae, o in zip(makes, (z, on_disk(tmp_path, z)))]
    for a, b in zip(*histories): assert a == pytest.approx(b, rel=1e-5)
    for a, b in zip(makes[0].parameters(), makes[1].parameters()): assert torch.allclose(a, b, atol=1e-5)

def test_measuring_streams_and_says_the_same(tmp_path):
    z, sae = data(333), TopKSAE(12, 2, k=3)
    blocks = on_disk(tmp_path, z)
    assert measure(sae, blocks, 50) == pytest.approx(measure(sae, z, 50), rel=1e-5)
    var, batches = in_order(blocks, sae, 50)
    assert torch.equal(torch.cat(list(batches)), sae.normalise(z))
    assert var == pytest.approx(sae.normalise(z).var(0, correction=0).sum().item(), rel=1e-5)

def test_a_block_is_read_as_a_whole_once(tmp_path, monkeypatch):
    "That is, by the pass that compares checksums; afterwards rows are taken."
    blocks, read = on_disk(tmp_path, data(300)), []
    whole = Blocks.read
    monkeypatch.setattr(Blocks, 'read', lambda self, start: read.append(start) or whole(self, start))
    train_sae(blocks, 2, 3, epochs=3, progress=False)
    assert read == list(blocks.starts)

def test_a_damaged_block_is_said_before_training(tmp_path):
    blocks = on_disk(tmp_path, data(300))
    file = blocks.file(128)
    file.write_bytes(file.read_bytes()[:-1] + b'\x7f')
    with pytest.raises(ValueError, match='000000128.*is damaged'): train_sae(blocks, 2, 3, progress=False)
    file.unlink()
    with pytest.raises(ValueError, match='there is no block .*00128'): train_sae(blocks, 2, 3, progress=False)
