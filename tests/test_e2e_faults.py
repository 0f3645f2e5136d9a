"End to end: kills, faults, going on. Processes really die, and what they leave is compared to the last bit."
import json, math, os, random, re, resource, shutil, signal, subprocess, sys
import time, warnings
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import nn

from lives import LIVES, checksum, live, moments, noise, same
from sae_ft import batches, sae_train
from sae_ft.experiment import Experiment, run
from sae_ft.runs import is_finished, load_run, reproduce
from sae_ft.plumbing import files
from sae_ft.plumbing.faults import Stopped
from sae_ft.plumbing.files import digest, lock, read_tensors
from sae_ft.plumbing.resume import Checkpoint
from sae_ft.sae_train import train_sae
from sae_ft.embeddings import embed_kept
from sae_ft.settings import Config

ROOT = Path(__file__).resolve().parent.parent

def one_line(error):
    "The message; it must be one sentence in one line."
    text = str(error.value)
    assert text and '\n' not in text and len(text) < 600, text
    return text

# --- processes

def run_life(settings):
    run(Config(**settings), progress=False)

def sae_life(folder):
    torch.manual_seed(0)
    z = torch.randn(1500, 32) @ torch.randn(32, 32)
    kept = Checkpoint(f'{folder}/state.safetensors', every=.05)
    sae, history = train_sae(z, epochs=40, progress=False, checkpoint=kept)
    sae.save(f'{folder}/sae.safetensors')
    Path(folder, 'history').write_text(json.dumps(history))

def embed_life(folder):
    torch.manual_seed(0)
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    net = nn.Sequential(nn.Conv2d(3, 64, 5), nn.ReLU(), nn.Conv2d(64, 64, 5), *pooled)
    data = [(torch.randn(3, 32, 32), i) for i in range(640)]
    how = dict(batch_size=16, device='cpu', precision='fp32', progress=False)
    z, y = embed_kept(net, data, f'{folder}/parts', every=0, **how)
    np.savez(f'{folder}/z.npz', z=z.numpy(), y=y.numpy())

@pytest.fixture(scope='module', autouse=True)
def alike():
    """Sums of floats depend on the number of threads: one in every process, here too.

    The first process imports everything, and the others find it there.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    live(bool, 0)
    yield
    torch.set_num_threads(threads)

# --- killed at random moments

@pytest.fixture(scope='module')
def pictures(tmp_path_factory): return noise(tmp_path_factory.mktemp('pictures')/'noise')

@pytest.fixture(scope='module')
def settings(pictures):
    return dict(dataset=pictures, epochs=2, batch_size=6, sae_epochs=20, lr=3e-4, log_every=1,
                precision='fp32', device='cpu', keep_epochs=True, cache=None)

@pytest.fixture(scope='module')
def quiet_run(settings, tmp_path_factory):
    "The run that nobody disturbs, and how long it takes."
    folder = tmp_path_factory.mktemp('quiet')/'run'
    code, seconds = live(run_life, dict(settings, out_dir=str(folder)))
    assert code == 0
    return load_run(folder), seconds

def left_by(folder, code):
    "What a killed run left."
    if [*(folder/'checkpoint').glob('tune*.safetensors')]: return 'checkpoint'
    if code == 0: return 'finished'
    return 'begun' if folder.exists() else 'nothing'

def test_a_run_killed_at_twenty_moments(settings, quiet_run, tmp_path):
    whole, seconds = quiet_run
    found = []
    for i, moment in enumerate(moments(20, seconds, seed=0)):
        mine = dict(settings, out_dir=str(tmp_path/str(i)), save_every=(0., .2, 60.)[i % 3])
        code, _ = live(run_life, mine, moment)
        assert code in (-signal.SIGKILL, 0)
        found.append(left_by(tmp_path/str(i), code))
        assert live(run_life, mine)[0] == 0
        same(whole, load_run(tmp_path/str(i)))
        shutil.rmtree(tmp_path/str(i))
    # the moments were not all too early or too late
    assert found.count('checkpoint') >= 2 and found.count('finished') <= 12, found

def test_sae_training_killed_at_ten_moments(tmp_path):
    (tmp_path/'quiet').mkdir()
    code, seconds = live(sae_life, str(tmp_path/'quiet'))
    kills = 0
    for i, moment in enumerate(moments(10, seconds, seed=1)):
        (folder := tmp_path/str(i)).mkdir()
        kills += live(sae_life, str(folder), moment)[0] == -signal.SIGKILL
        assert live(sae_life, str(folder))[0] == 0
        assert checksum(folder/'sae.safetensors') == checksum(tmp_path/'quiet'/'sae.safetensors')
        assert (folder/'history').read_text() == (tmp_path/'quiet'/'history').read_text()
    assert code == 0 and kills >= 3

def test_embedding_killed_at_ten_moments(tmp_path):
    (tmp_path/'quiet').mkdir()
    code, seconds = live(embed_life, str(tmp_path/'quiet'))
    want, kept = np.load(tmp_path/'quiet'/'z.npz'), []
    for i, moment in enumerate(moments(10, seconds, seed=2)):
        (folder := tmp_path/str(i)).mkdir()
        live(embed_life, str(folder), moment)
        kept.append(len(list(folder.glob('parts/0*.safetensors'))))
        assert live(embed_life, str(folder))[0] == 0
        got = np.load(folder/'z.npz')
        assert (got['z'] == want['z']).all() and (got['y'] == want['y']).all()
    assert code == 0 and sum(0 < o < 40 for o in kept) >= 2, kept  # 40: all batches

# --- SIGTERM

def wait_for(condition, seconds=120):
    t = time.time()
    while not condition():
        assert time.time() - t < seconds, 'waited too long'
        time.sleep(.02)

ENV = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | {
    'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1',
    'MPLBACKEND': 'module://matplotlib_inline.backend_inline'}
LONG = dict(epochs=60, save_every=3600.)  # only SIGTERM makes it save

def steps_of(folder):
    path = Path(folder)/'metrics.jsonl'
    return path.read_text().count('"step", ') if path.exists() else 0

def saved_step(folder):
    _, place = Checkpoint(Path(folder)/'checkpoint'/'tune.safetensors').load()
    return len([o for o in place['lines'] if o['event'] == 'step'])

IMPATIENT = '''
import os, signal
from sae_ft.trainer import Tuning
save = Tuning.save
def interrupted(self):
    os.kill(os.getpid(), signal.SIGTERM)
    save(self)
Tuning.save = interrupted
'''  # SIGTERM again, while it saves: so do the threads of a papermill that ends

@pytest.mark.parametrize('first', ('', IMPATIENT), ids=('once', 'twice'))
def test_sigterm_saves_and_stops(settings, first, tmp_path):
    mine = dict(settings, **LONG, out_dir='run')
    code = f'{first}from sae_ft.experiment import run, Config; run(Config(**{mine!r}), progress=False)'
    words = [sys.executable, '-c', code]
    p = subprocess.Popen(words, cwd=tmp_path, env=ENV, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: steps_of(tmp_path/'run') > 20)
    t = time.time()
    p.terminate()
    said = p.communicate(timeout=60)[1]
    assert time.time() - t < 10 and p.returncode == 143
    sentence = (r'stopped by SIGTERM after step (\d+) of \d+; '
                r'what was done is kept in .*tune.safetensors.*goes on from there\.\n')
    step = int(re.search(sentence, said)[1])
    assert step > 20 and saved_step(tmp_path/'run') == step

def test_sigterm_saves_the_very_step_of_an_sae(tmp_path, monkeypatch):
    z = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
    how, steps = dict(expansion=16, k=1, epochs=5, progress=False), count()
    whole, history = train_sae(z, **how)
    assert history[1]['dead'] > 0  # so that it matters how long a feature was silent
    def one(*args, was=sae_train.train_step):
        if next(steps) == 9: os.kill(os.getpid(), signal.SIGTERM)  # in the tenth step, of eight an epoch
        was(*args)
    monkeypatch.setattr(sae_train, 'train_step', one)
    kept = Checkpoint(tmp_path/'sae.safetensors', every=3600.)
    with pytest.raises(Stopped) as error: train_sae(z, **how, checkpoint=kept)
    assert error.value.code == 143
    sentence = 'stopped by SIGTERM in epoch 2 of 5 of the SAE; what was done is kept in'
    assert one_line(error).startswith(sentence)
    about = kept.load()[1]
    assert about['step'] == 2 and about['history'] == history[:1]
    again, lines = train_sae(z, **how, checkpoint=kept)
    assert lines == history and digest(again.state_dict()) == digest(whole.state_dict())
    when = kept.path.stat().st_mtime_ns  # what is finished is not written again
    train_sae(z, **how, checkpoint=kept)
    assert kept.path.stat().st_mtime_ns == when

def papermill(cwd, parameters, out='out.ipynb'):
    args = [o for k, v in parameters.items() for o in ('-p', k, str(v))]
    notebook = ROOT/'nbs'/'05_finetune.ipynb'
    words = [sys.executable, '-m', 'papermill', '--no-progress-bar', notebook, out, *args]
    return subprocess.Popen(words, cwd=cwd, env=ENV, stderr=subprocess.PIPE, text=True)

@pytest.mark.skipif(sys.platform != 'linux', reason='a kernel hears of the end of papermill on Linux only')
def test_papermill_stopped_by_sigterm_goes_on(settings, tmp_path):
    mine = dict(settings, epochs=4, save_every=3600., out_dir='run')
    p = papermill(tmp_path, mine)
    wait_for(lambda: steps_of(tmp_path/'run') > 3)
    p.terminate()
    said = p.communicate(timeout=60)[1]  # ends when the kernel has closed the pipe, too
    assert p.returncode == -signal.SIGTERM, said[-2000:]
    assert re.search('stopped by SIGTERM after step .* goes on from there', said), said[-2000:]
    assert not is_finished(tmp_path/'run') and saved_step(tmp_path/'run') > 3
    p = papermill(tmp_path, mine)
    assert p.communicate(timeout=300) and p.returncode == 0
    nb = nbformat.read(tmp_path/'out.ipynb', 4)
    assert "Going on with the run in 'run'." in json.dumps(nb)
    (tmp_path/'whole').mkdir()
    p = papermill(tmp_path/'whole', mine)
    assert p.communicate(timeout=300) and p.returncode == 0
    same(load_run(tmp_path/'run'), load_run(tmp_path/'whole'/'run'))
    # the command of a finished run shows it again
    when = (tmp_path/'run'/'model.safetensors').stat().st_mtime_ns
    p = papermill(tmp_path, mine)
    assert p.communicate(timeout=300) and p.returncode == 0
    assert (tmp_path/'run'/'model.safetensors').stat().st_mtime_ns == when
    assert 'is finished: it is shown again' in json.dumps(nbformat.read(tmp_path/'out.ipynb', 4))

@pytest.mark.skipif(sys.platform != 'linux', reason='the runs of a sweep end with it on Linux only')
def test_a_sweep_killed_and_restarted_loses_nothing(settings, tmp_path):
    code = f'''
from sae_ft.sweep import grid, sweep
if __name__ == '__main__':
    runs = grid('runs', **{dict(settings, epochs=2)!r}, seed=[0, 1])
    table = sweep(runs, progress=False)
    print(table.to_json(orient='records'))
'''
    (tmp_path/'go.py').write_text(code)
    words, first, second = [sys.executable, 'go.py'], tmp_path/'runs'/'seed0', tmp_path/'runs'/'seed1'
    def start(): return subprocess.Popen(words, cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, text=True)
    p = start()
    wait_for(lambda: is_finished(first) and steps_of(second) > 0, 240)
    children = psutil.Process(p.pid).children(recursive=True)
    p.kill()
    assert not psutil.wait_procs(children, timeout=20)[1], 'a run outlived its sweep'
    assert is_finished(first) and not is_finished(second)
    when = (first/'model.safetensors').stat().st_mtime_ns
    rows = json.loads(start().communicate(timeout=300)[0])
    assert [o['state'] for o in rows] == ['was done', 'done']
    assert (first/'model.safetensors').stat().st_mtime_ns == when
    assert load_run(second).provenance['resumed'] and 'resumed' not in load_run(first).provenance

# --- Ctrl-C

def sigint_at(exp, n):
    "Have Ctrl-C pressed where the n-th step is logged, in the middle of it."
    log, steps = exp.log, count(1)
    def pressed(**line):
        log(**line)
        if line['event'] == 'step' and next(steps) == n: signal.raise_signal(signal.SIGINT)
    exp.log = pressed

def test_ctrl_c_keeps_the_state_and_the_same_call_goes_on(settings, quiet_run, tmp_path):
    mine = Config(**dict(settings, out_dir=str(tmp_path/'run'), save_every=3600.))
    exp = Experiment(mine, progress=False)
    exp.zero_shot()
    exp.fit_sae()
    sigint_at(exp, 11)
    with pytest.raises(KeyboardInterrupt) as error: exp.tune()
    sentence = (r"stopped by Ctrl-C after step 11 of \d+; what was done is kept in '.*tune.safetensors', "
                r'and the same call goes on from there\.')
    assert re.fullmatch(sentence, one_line(error))
    assert saved_step(tmp_path/'run') == 11 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    exp.tune()  # as when the cell is run again
    exp.measure()
    same(quiet_run[0], exp.save())

CELL = """
import torch
from sae_ft.plumbing.resume import Checkpoint
from sae_ft.sae_train import train_sae
torch.manual_seed(0)
z = torch.randn(2000, 32)
kept = Checkpoint('state.safetensors', every=.2)
sae, history = train_sae(z, epochs={epochs}, progress=False, checkpoint=kept)
print(len(history))
"""

def test_the_stop_button_of_a_notebook(tmp_path):
    from jupyter_client.manager import start_new_kernel
    manager, client = start_new_kernel(cwd=str(tmp_path), env=ENV)
    try:
        client.execute(CELL.format(epochs=100_000))
        wait_for((tmp_path/'state.safetensors').exists)
        manager.interrupt_kernel()
        found = client.get_shell_msg(timeout=60)
        while found['msg_type'] != 'execute_reply': found = client.get_shell_msg(timeout=60)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    said = found['content']
    assert (said['status'], said['ename'], said['traceback']) == ('error', 'Interrupted', [said['evalue']])
    sentence = (r'stopped by Ctrl-C in epoch \d+ of 100000 of the SAE; what was done is kept in '
                r"'state.safetensors', and the same call goes on from there\.")
    assert re.fullmatch(sentence, said['evalue'])

# --- faults

class Cut(Exception): pass

@pytest.fixture(scope='module')
def cut_off(settings, tmp_path_factory):
    "The folder of a run that was cut off after its first epoch, with a checkpoint."
    folder = tmp_path_factory.mktemp('cut')/'run'
    exp = Experiment(Config(**dict(settings, out_dir=str(folder), save_every=0.)), progress=False)
    log = exp.log
    def dying(**line):
        log(**line)
        if line['event'] == 'epoch': raise Cut
    exp.log = dying
    with pytest.raises(Cut):
        exp.zero_shot()
        exp.fit_sae()
        exp.tune()
    exp.lock.release(force=True)
    return folder

@pytest.fixture
def begun(cut_off, settings, tmp_path):
    "Settings of a run that was cut off, in a folder of its own."
    shutil.copytree(cut_off, tmp_path/'run')
    return dict(settings, out_dir=str(tmp_path/'run'), save_every=0.)

def state(settings): return Path(settings['out_dir'])/'checkpoint'/'tune.safetensors'
def go_on(settings): return run(Config(**settings), progress=False)
def state_before(settings): return state(settings).with_name('tune-before.safetensors')

def full_life(settings):
    most = 20_000_000  # bytes of a file: a checkpoint has 47 MB
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try: run(Config(**settings), progress=False)
    except OSError as e: Path(settings['out_dir'] + '.said').write_text(str(e))

def test_no_room_for_a_checkpoint(begun, quiet_run):
    before = state(begun).read_bytes()
    live(full_life, begun)
    said = Path(begun['out_dir'] + '.said').read_text()
    sentence = (r"'.*tune.safetensors' could not be written \(.*File too large.*\), since it needs ([\d.]+) "
                r'MB and [\d,.]+ MB are free; the one that was there before is kept: '
                r'free some space and run again\.')
    assert float(re.fullmatch(sentence, said)[1]) == pytest.approx(len(before)/1e6, rel=.01)
    assert state(begun).read_bytes() == before and not list(Path(begun['out_dir']).rglob('.*.part'))
    same(quiet_run[0], go_on(begun))

def unshare(command):
    return subprocess.run(['unshare', '-rm', 'sh', '-c', command], capture_output=True, text=True, env=ENV)

def test_a_disk_that_is_full(begun, quiet_run, tmp_path):
    "A real file system of 60 MB, where the second checkpoint of 47 MB does not fit beside the first."
    if shutil.which('unshare') is None or unshare('mount -t tmpfs none /mnt').returncode:
        pytest.skip('no file system can be mounted here')
    there = dict(begun, out_dir=str(tmp_path/'disk'/'run'))
    code = f'''
import torch; torch.set_num_threads(1)
from sae_ft.experiment import run
from sae_ft.settings import Config
try: run(Config(**{there!r}), progress=False)
except OSError as e: print(e)
'''
    (tmp_path/'disk').mkdir()
    state_before(begun).unlink()  # the second of three
    (tmp_path/'go.py').write_text(code)
    disk, after = tmp_path/'disk', tmp_path/'after'
    got = unshare(' && '.join([
        f"mount -t tmpfs -o size=60m none '{disk}'", f"cp -r '{begun['out_dir']}' '{disk}/run'",
        f'{sys.executable} {tmp_path}/go.py', f"cp -r '{disk}/run' '{after}'"]))
    sentence = r"'.*' could not be written \(.*No space left on device.*\).*: free some space and run again\."
    assert re.fullmatch(sentence, got.stdout.strip()), got
    assert (after/'checkpoint'/'tune.safetensors').read_bytes() == state(begun).read_bytes()
    same(quiet_run[0], go_on(dict(begun, out_dir=str(after))))

def one_bit(raw):
    middle = len(raw)//2
    return raw[:middle] + bytes([raw[middle] ^ 4]) + raw[middle + 1:]

HARMS = {'cut by one': lambda b: b[:-1], 'cut to nine': lambda b: b[:9], 'empty': lambda b: b'',
         'one bit': one_bit, 'noise': lambda b: os.urandom(100)}

@pytest.mark.parametrize('harm', HARMS.values(), ids=HARMS)
def test_the_state_before_a_damaged_one_is_gone_on_from(begun, quiet_run, harm):
    state(begun).write_bytes(harm(state(begun).read_bytes()))
    with pytest.warns(UserWarning, match=r"tune.safetensors' is damaged: the state before it is used\."):
        same(quiet_run[0], go_on(begun))

def test_two_damaged_checkpoints_are_said_and_can_be_deleted(begun, quiet_run):
    both = state(begun), state_before(begun)
    for o in both: o.write_bytes(one_bit(o.read_bytes()))
    with pytest.raises(ValueError) as error: go_on(begun)
    sentence = (r"the checkpoint '.*tune.safetensors' is damaged: delete it and 'tune-before.safetensors', "
                r'and what it held is made again\.')
    assert re.fullmatch(sentence, one_line(error))
    for o in both: o.unlink()
    same(quiet_run[0], go_on(begun))

def test_damage_anywhere_in_what_a_run_goes_on_from(begun, quiet_run, tmp_path):
    "A random byte of each kind of file: one sentence that names the place, or the same bits in the end."
    rng, whole = random.Random(0), Path(begun['out_dir'])
    kinds = ('checkpoint/tune.safetensors', 'checkpoint/sae.safetensors', 'metrics.jsonl', 'config.json',
             'checkpoint/zero_shot/000000000.safetensors', 'checkpoint/zero_shot/about.json')
    for i, name in enumerate(kinds):
        folder = shutil.copytree(whole, tmp_path/f'run{i}')
        raw = bytearray((folder/name).read_bytes())
        raw[rng.randrange(len(raw))] ^= rng.randrange(1, 256)
        (folder/name).write_bytes(raw)
        mine = dict(begun, out_dir=str(folder))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try: done = go_on(mine)
            except ValueError as e:
                assert '\n' not in str(e) and str(folder) in str(e), name
                continue
        same(quiet_run[0], done)
        shutil.rmtree(folder)

def test_a_line_that_was_cut(begun, quiet_run):
    record = Path(begun['out_dir'])/'metrics.jsonl'
    record.write_bytes(record.read_bytes()[:-7])
    assert load_run(begun['out_dir']).metrics and not is_finished(begun['out_dir'])
    same(quiet_run[0], go_on(begun))

def lock_life(folder):
    taken = lock(Path(folder))
    Path(folder, 'ready').touch()
    time.sleep(60)
    taken.release()

def test_two_runs_in_one_folder(begun):
    p = LIVES.Process(target=lock_life, args=(begun['out_dir'],))
    p.start()
    try:
        wait_for((Path(begun['out_dir'])/'ready').exists)
        before = (Path(begun['out_dir'])/'metrics.jsonl').read_bytes()
        with pytest.raises(ValueError) as error: go_on(begun)
        assert 'another process is at work in' in one_line(error)
        assert (Path(begun['out_dir'])/'metrics.jsonl').read_bytes() == before
    finally:
        p.kill()
        p.join()

def test_other_settings_do_not_go_on(begun):
    with pytest.raises(ValueError) as error: go_on(dict(begun, lam=2., seed=7))
    sentence = ('holds a run with other settings (lam 1.0 there and 2.0 here, seed 0 there and 7 here): '
                'choose another out_dir')
    assert sentence in one_line(error)
    assert state(begun).exists()

def test_other_pictures_do_not_go_on(begun):
    picture = Path(begun['dataset'])/'cat'/'0.png'
    before = picture.read_bytes()
    try:
        Image.new('RGB', (24, 24), 'red').save(picture)
        with pytest.raises(ValueError) as error: go_on(begun)
    finally: picture.write_bytes(before)
    assert 'pictures or weights changed since the run' in one_line(error) and state(begun).exists()

def test_a_loss_that_is_not_finite(settings, tmp_path):
    mine = dict(settings, out_dir=str(tmp_path/'run'), lr=1e8, warmup=0., clip_grad=1e9, save_every=0.)
    with pytest.raises(ValueError) as error: run(Config(**mine), progress=False)
    sentence = (r'the (?:loss|gradient) became \S+ at step (\d+), in the batch of (\d+) training pictures, '
                r'(.*): lower lr \(now .*\) or lam, or look at these pictures; what was done is kept in')
    said = re.search(sentence, one_line(error))
    assert int(said[1]) > 0 and int(said[2]) == 6 and re.fullmatch(r'(\S+\.png(, )?){6}', said[3])
    tensors, about = Checkpoint(state(mine)).load()
    assert all(v.isfinite().all() for k, v in tensors.items() if k.startswith('classifier/'))
    assert about['at']['step'] + 8*about['at']['epoch'] == int(said[1])

def test_a_worker_that_dies(begun, monkeypatch):
    whole = batches.Crops.__getitems__
    def dying(self, at):
        if torch.utils.data.get_worker_info(): os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, at)
    monkeypatch.setattr(batches.Crops, '__getitems__', dying)
    before = state(begun).read_bytes()
    with pytest.raises(RuntimeError) as error: go_on(dict(begun, workers=1, pictures_gb=0.))
    sentence = ('a process that decodes pictures died, often for lack of memory: '
                'lower workers (now 1) and run again.')
    assert one_line(error) == sentence and state(begun).read_bytes() == before

@pytest.mark.parametrize('workers', [0, 1])
def test_a_picture_that_breaks_while_the_run_goes(settings, tmp_path, workers):
    pictures = shutil.copytree(settings['dataset'], tmp_path/'pictures').as_posix()
    mine = dict(settings, dataset=pictures, workers=workers, pictures_gb=0., out_dir=str(tmp_path/'run'))
    exp = Experiment(Config(**mine), progress=False)
    exp.zero_shot()
    exp.fit_sae()
    for o in Path(mine['dataset']).rglob('*.png'): o.write_bytes(b'gone')
    with pytest.raises(ValueError) as error: exp.tune()
    sentence = (r'picture .*\.png cannot be read any more \(no picture of a known kind\): '
                r'it changed since it was checked\.')
    assert re.fullmatch(sentence, one_line(error))

def hungry_life(settings):
    exp = Experiment(Config(**settings), progress=False)
    exp.zero_shot()
    exp.fit_sae()
    room = psutil.Process().memory_info().vms + 30_000_000
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    try:
        exp.tune()
        said = 'it ended'
    except BaseException as e: said = str(e) if isinstance(e, MemoryError) else repr(e)
    Path(settings['out_dir'] + '.said').write_text(said)

def test_every_part_of_a_run_says_what_to_lower():
    part = SimpleNamespace(took={}, cfg=Config(batch_size=7))
    lowers = dict(SAE='expansion or limit', judging='batch_size (now 7)',
                  loading='limit, or choose a smaller model')
    for name, lower in lowers.items():
        with pytest.raises(MemoryError) as error, Experiment.timed(part, name):
            raise RuntimeError('DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes')
        assert str(error.value) == f'there is not enough memory: lower {lower}.'

def test_memory_that_runs_out(settings, tmp_path):
    mine = dict(settings, batch_size=48, out_dir=str(tmp_path/'run'))
    code, _ = live(hungry_life, mine)
    assert code == 0
    said = Path(mine['out_dir'] + '.said').read_text()
    assert re.fullmatch(r'there is not enough memory: lower batch_size \(.*\).*\.', said), said

def test_workers_change_nothing(begun, quiet_run):
    same(quiet_run[0], go_on(dict(begun, workers=2, pictures_gb=0.)))

def refuse_at(monkeypatch, n):
    "From the n-th file on, the disk is full; returns a list that grows with each file that is written."
    seen = []
    def sync(path, was=files._sync):
        if path.is_file():
            seen.append(path.name)
            if len(seen) > n: raise OSError(28, 'No space left on device')
        was(path)
    monkeypatch.setattr(files, '_sync', sync)
    return seen

def test_a_disk_that_is_full_at_any_file(settings, quiet_run, tmp_path, monkeypatch):
    mine = dict(settings, save_every=0.)
    with monkeypatch.context() as patch:
        seen = refuse_at(patch, math.inf)
        same(quiet_run[0], go_on(dict(mine, out_dir=str(tmp_path/'all'))))
    last = {name: i for i, name in enumerate(seen)}
    for name in ('config.json', '000000000.safetensors', 'tune.safetensors', 'predictions.parquet'):
        n = last[name]
        here = dict(mine, out_dir=str(tmp_path/name))
        with monkeypatch.context() as patch, pytest.raises(OSError) as error:
            refuse_at(patch, n)
            go_on(here)
        sentence = (r"'(.*)' could not be written \(No space left on device\), since it needs [\d,.]+ MB and "
                    r'[\d,.]+ MB are free.*: free some space and run again\.')
        said = re.fullmatch(sentence, one_line(error))
        assert Path(said[1]).name == name
        same(quiet_run[0], go_on(here))
        shutil.rmtree(here['out_dir'])

def test_a_run_folder_that_is_moved_while_it_runs(settings, quiet_run, tmp_path):
    mine = dict(settings, out_dir=str(tmp_path/'run'), save_every=0.)
    exp = Experiment(Config(**mine), progress=False)
    log = exp.log
    def moving(**line):
        if line['event'] == 'epoch' and line['epoch'] == 1: (tmp_path/'run').rename(tmp_path/'elsewhere')
        log(**line)
    exp.log = moving
    exp.zero_shot()
    exp.fit_sae()
    with pytest.raises(OSError) as error: exp.tune()
    sentence = (r"'.*metrics.jsonl' could not be written \(No such file or directory\): its folder was "
                r'moved or deleted; run again where it is now\.')
    assert re.fullmatch(sentence, one_line(error))
    with pytest.raises(OSError, match='was moved or deleted while the run was at work'): exp.embed('tuned')
    exp.lock.release(force=True)
    assert not (tmp_path/'run').exists()
    same(quiet_run[0], go_on(dict(mine, out_dir=str(tmp_path/'elsewhere'))))

def test_a_clock_that_is_set_back(settings, quiet_run, tmp_path, monkeypatch):
    seconds, saved = count(time.time(), -3600.), []
    def save(self, *args, was=Checkpoint.save, **kwargs):
        saved.append(self.path.name)
        was(self, *args, **kwargs)
    monkeypatch.setattr(time, 'time', lambda: next(seconds))
    monkeypatch.setattr(Checkpoint, 'save', save)
    done = go_on(dict(settings, out_dir=str(tmp_path/'run'), save_every=.01))
    same(quiet_run[0], done)
    assert saved.count('tune.safetensors') > 3 and min(done.results['took'].values()) >= 0
    assert all(o['seconds'] >= 0 for o in [done.results, *done.of('epoch')])

# --- the record

def test_a_run_says_what_it_was_made_of(quiet_run):
    about = quiet_run[0].provenance
    assert about['seed'] == 0 and about['command']
    assert about['versions']['torch'] and about['hardware']['threads'] == 1
    assert set(about['fingerprint']) == {'model', 'train', 'val', 'test'}
    assert all(re.fullmatch('[0-9a-f]{64}', o) for o in about['fingerprint'].values())
    if (ROOT/'.git').exists(): assert re.fullmatch(r'[0-9a-f]{40}(\+changed)?', about['revision'])

def test_reproduce_gives_the_same_metrics(quiet_run, tmp_path, capsys):
    done = quiet_run[0]
    text = reproduce(done, str(tmp_path/'again'), str(ROOT/'nbs'/'05_finetune.ipynb'))
    assert capsys.readouterr().out.strip() == text
    assert text.splitlines()[-1].startswith('OMP_NUM_THREADS=1 papermill ')
    text = text.replace(' papermill ', f' {sys.executable} -m papermill ', 1)
    got = subprocess.run(text, shell=True, cwd=tmp_path, env=ENV, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-2000:]
    again = load_run(tmp_path/'again')
    for name in ('before', 'after'): assert again.results[name] == done.results[name]
    assert again.of('step') == done.of('step')
    assert checksum(again.folder/'model.safetensors') == checksum(done.folder/'model.safetensors')
