"Watching: from the folder alone, while another process writes it; runs beside each other in any order."
import asyncio, json, shutil, subprocess, sys, time

import pytest

from sae_ft import widgets, widgets_watch
from sae_ft.plumbing.files import paths_in
from sae_ft.runs import load_run
from sae_ft.widgets_watch import RunWatch, compare_runs, settings_apart, sparkline, standing, watch
from tiny_runs import TINY, done, one_line  # noqa: F401

RUN = """
from sae_ft.experiment import run
from sae_ft.settings import Config
run(Config(**{0}, out_dir={1!r}), progress=False)
"""

def test_a_run_in_another_process_is_watched_to_its_end(tmp_path):
    folder, seen = tmp_path/'mine', set()
    widget = watch(str(folder))
    assert 'no run has begun here yet' in widget.out.value
    code = RUN.format(TINY | dict(epochs=3, method='ft', save_every=0.), str(folder))
    with subprocess.Popen([sys.executable, '-c', code]) as process:
        while process.poll() is None and not widget.finished:
            widget.refresh()
            for word in ('embedded', 'Fine-tuning: step', 'left.', '<img', 'After epoch', 'Finished'):
                if word in widget.out.value: seen.add(word)
            time.sleep(.05)
    widget.refresh()
    assert process.returncode == 0 and widget.finished and 'Finished, after' in widget.out.value
    assert {'Fine-tuning: step', 'left.', '<img'} <= seen
    assert not (folder/'checkpoint').exists() and load_run(folder).results  # the watcher left nothing there

def test_files_that_go_while_it_looks(done, tmp_path, monkeypatch):
    folder = shutil.copytree(done.folder, tmp_path/'run')
    newest = max(o.stat().st_mtime for o in folder.iterdir())
    (folder/'checkpoint').mkdir()
    (folder/'checkpoint'/'sae-before.safetensors').write_text('')
    def listed_before_they_go(path):
        found = paths_in(path)
        shutil.rmtree(folder/'checkpoint', ignore_errors=True)
        return found
    monkeypatch.setattr(widgets_watch, 'paths_in', listed_before_they_go)
    assert widgets_watch.last_written(folder) == newest and not (folder/'checkpoint').exists()
    assert widgets_watch.last_written(tmp_path/'nowhere') == 0

def test_it_follows_where_a_page_is_open_and_stops_at_the_end(done, tmp_path, monkeypatch):
    folder = shutil.copytree(done.folder, tmp_path/'run')
    whole = (folder/'metrics.jsonl').read_text()
    (folder/'metrics.jsonl').write_text(''.join(whole.splitlines(keepends=True)[:5]))
    monkeypatch.setattr(widgets, 'reacts', lambda: True)
    monkeypatch.setattr(widgets_watch, 'reacts', lambda: True)
    async def look():
        widget = RunWatch(folder, every=.01)
        assert not widget.finished and not widget.task.done()
        (folder/'metrics.jsonl').write_text(whole)
        await asyncio.wait_for(widget.task, 60)
        assert widget.finished and 'Finished' in widget.out.value
    asyncio.run(look())

def test_a_run_folder_that_is_damaged_gets_a_sentence(done, tmp_path):
    folder = shutil.copytree(done.folder, tmp_path/'run')
    (folder/'metrics.jsonl').write_text('{\n{}\n')
    assert 'is damaged' in watch(folder).out.value
    (folder/'config.json').write_text('{}')
    assert 'has no settings' in watch(folder).out.value

def test_names_of_a_stranger_stay_texts(done, tmp_path):
    folder = shutil.copytree(done.folder, tmp_path/'<b>run')
    assert '<b>run' not in watch(folder).out.value and '&lt;b&gt;run' in watch(folder).out.value
    assert '<b>run' not in compare_runs([folder]).out.value

def test_a_finished_run_that_brought_nothing_says_so(done):
    run = load_run(done.folder)
    run.metrics[-1]['validation'] = dict(tuned=.1, zero_shot=.2, commonest=.1, class_name='x', n=10)
    assert 'Tuning brought nothing' in standing(run)

def test_runs_beside_each_other(done, tmp_path):
    for i, seed in enumerate((0, 1, 2)):
        folder = shutil.copytree(done.folder, tmp_path/f'r{i}')
        about = json.loads((folder/'config.json').read_text())
        about['settings'] |= dict(seed=seed, dataset='iconshift' if i else 'elsewhere')
        about.pop('crc32')
        (folder/'config.json').write_text(json.dumps(about))
    table = compare_runs(tmp_path)
    assert settings_apart([load_run(tmp_path/f'r{i}') for i in range(3)]) == dict(
        seed=[0, 1, 2], dataset=['elsewhere', 'iconshift', 'iconshift'])
    table.controls['by'].value = 'seed'
    assert [o['run'] for o in table.ordered()] == ['r2', 'r1', 'r0']
    assert table.out.value.index('r2') < table.out.value.index('r0') and table.out.value.count('<img') == 6
    table.controls['by'].value = 'dataset'
    assert table.ordered()[0]['dataset'] == 'iconshift'
    assert settings_apart([done]) == {}
    with pytest.raises(FileNotFoundError) as error: compare_runs([])
    one_line(error)

def test_sparklines():
    assert sparkline([.5]).startswith('<img alt="0.5 to 0.5"') and sparkline([1, 1, 1])
    assert sparkline([float('nan')]) == ''
