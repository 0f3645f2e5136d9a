"Trackers: each sees what the record has, without a network; none can end a run or leave links in its folder."
import sqlite3, warnings
from dataclasses import replace

import pytest

from sae_ft.experiment import run
from sae_ft.runs import load_run
from sae_ft.settings import Config
from sae_ft.tracker import Tracked, values_of
from tiny_runs import TINY, done, one_line  # noqa: F401

END = dict(event='end', before=dict(line=dict(value=.4)), after=dict(line=dict(value=.6)))

@pytest.fixture
def offline(monkeypatch):
    "Nobody is logged in anywhere."
    for o in ('WANDB_API_KEY', 'MLFLOW_TRACKING_URI'): monkeypatch.delenv(o, raising=False)
    monkeypatch.setenv('WANDB_MODE', 'offline')

def written(folder, tracker):
    (folder/'mine').mkdir()
    journal = Tracked(folder/'mine'/'metrics.jsonl', Config(tracker=tracker, device='cpu'))
    journal.clear()
    for i in range(3): journal.add(event='step', step=i, loss=1/(i + 1))
    journal.add(**END)
    assert len(journal.read()) == 4 and [o.name for o in (folder/'mine').iterdir()] == ['metrics.jsonl']
    return folder/'trackers'

def test_wandb_without_a_network(tmp_path, offline):
    import wandb
    file, = written(tmp_path, 'wandb').rglob('run-*.wandb')
    wandb.teardown()         # it writes the rest
    raw = file.read_bytes()  # names stand in it as they are
    assert raw.count(b'train/loss') >= 3 and b'tuned/line' in raw and b'mine' in raw

def test_mlflow_without_a_server(tmp_path, offline):
    with sqlite3.connect(written(tmp_path, 'mlflow')/'mlflow.db') as db:
        assert db.execute("select step, round(value, 3) from metrics where key = 'train/loss' order by step"
                          ).fetchall() == [(0, 1.), (1, .5), (2, .333)]
        assert db.execute('select name, status from runs').fetchall() == [('mine', 'FINISHED')]

def test_a_tracked_run_is_the_same_run(done, tmp_path):
    "Whoever looks on changes nothing."
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    again = run(replace(done.config, tracker='tensorboard', out_dir=str(tmp_path/'again')), progress=False)
    assert again.of('step') == done.of('step') and again.results['after'] == done.results['after']
    assert again.config.decisive() == done.config.decisive()
    events = EventAccumulator(str(tmp_path/'trackers'/'again')).Reload()
    assert [o.step for o in events.Scalars('train/loss')] == [o['step'] for o in again.of('step')]
    assert {f'tuned/{k}' for k in again.results['after']} <= set(events.Tags()['scalars'])
    assert load_run(again.folder).results  # no link, nothing strange in the folder

def test_a_tracker_that_cannot_begin_is_said_once(tmp_path, monkeypatch):
    (tmp_path/'mine').mkdir()
    (tmp_path/'trackers').write_text('a file in its place')
    journal = Tracked(tmp_path/'mine'/'metrics.jsonl', Config(tracker='tensorboard', device='cpu'))
    with pytest.warns(UserWarning, match='tensorboard sees no more of this run'): journal.clear()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        journal.add(event='step', step=0, loss=1.)
    assert len(journal.read()) == 1

def test_a_tracker_that_is_not_here_is_refused_first(monkeypatch):
    monkeypatch.setattr('sae_ft.settings.find_spec', lambda name: None)
    with pytest.raises(ValueError, match='pip install wandb') as error: Config(tracker='wandb').check()
    one_line(error)
    with pytest.raises(ValueError, match='tracker is'): Config(tracker='paper').check()

def test_every_line_of_a_run_can_be_handed_on(done):
    for line in done.metrics:
        assert all(isinstance(v, (int, float)) for v in values_of(line).values()), line
