"""End to end: files from strangers.

Nothing in them is executed, nothing is written outside of its place, and whatever they hold is met with
one sentence.
"""
import contextlib, io, json, math, os, pickle, random, shutil, struct, subprocess, sys, time, warnings
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import save_file

from sae_ft.clip import ASSETS, load_clip
from sae_ft.experiment import experiment, run
from sae_ft.runs import is_finished, load_run, read_config, read_metrics, reproduce
from sae_ft.plumbing.files import Journal, digest, read_json, read_tensors, write_json
from sae_ft.plumbing.resume import Checkpoint
from sae_ft.sae import SAE, TopKSAE
from sae_ft.saes_of_others import load_official, read_saelens, write_saelens
from sae_ft.settings import RULES, Config, listed

EXPECTED = FileNotFoundError, ValueError
MARK = Path('executed')  # what a pickle would make

@pytest.fixture(autouse=True)
def cwd(tmp_path_factory, monkeypatch): monkeypatch.chdir(tmp_path_factory.mktemp('cwd'))

class Evil:
    def __reduce__(self): return os.system, (f'touch {MARK.absolute()}',)

def torch_saved(legacy):
    out = io.BytesIO()
    torch.save(dict(a=Evil()), out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()

PICKLES = dict(
    zip=lambda: torch_saved(False), legacy=lambda: torch_saved(True),
    plain=lambda: pickle.dumps(Evil()), old=lambda: pickle.dumps(dict(a=Evil()), protocol=2))

def refused(f, *args, **kw):
    "The one sentence with which it is refused; nothing was executed."
    t = time.time()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(EXPECTED) as e: f(*args, **kw)
    text = str(e.value)
    assert text and '\n' not in text and not MARK.exists() and time.time() - t < 20, text
    return text

# --- pickles

@pytest.mark.parametrize('kind', PICKLES)
def test_these_pickles_are_loaded(kind):
    "They would do it: the tests below can fail."
    raw = io.BytesIO(PICKLES[kind]())
    if kind in ('zip', 'legacy'): torch.load(raw, weights_only=False)
    else: pickle.loads(raw.getvalue())
    assert MARK.exists()

@pytest.mark.parametrize('kind', PICKLES)
def test_no_pickle_is_executed(kind, tmp_path, done):
    raw = PICKLES[kind]()
    model, sae = tmp_path/'model.pt', tmp_path/'sae.pt'
    for o in (model, sae): o.write_bytes(raw)
    refused(load_clip, 'RN50', str(model))
    for name in ('open_clip_pytorch_model.bin', 'open_clip_model.safetensors'):
        place = tmp_path/name.replace('.', '_')
        shutil.copytree(ASSETS/'iconclip', place)
        (place/'open_clip_model.safetensors').unlink()
        (place/name).write_bytes(raw)
        refused(load_clip, f'local-dir:{place}')
    refused(load_official, sae, 4)
    refused(SAE.load, sae)
    cfg = Config(sae=str(sae), limit=8, out_dir=str(tmp_path/'run'))
    assert 'sae.pt' in refused(experiment, cfg, progress=False) and not (tmp_path/'run').exists()
    write_saelens(TopKSAE(8, k=2), tmp_path/'lens')
    (tmp_path/'lens'/'sae_weights.safetensors').write_bytes(raw)
    refused(read_saelens, tmp_path/'lens')
    looks = {
        'config.json': lambda r: r, 'model.safetensors': lambda r: r.classifier,
        'sae.safetensors': lambda r: r.sae, 'predictions.parquet': lambda r: r.predictions,
        'metrics.jsonl': lambda r: r.results}
    for i, (name, look) in enumerate(looks.items()):
        folder = shutil.copytree(done, tmp_path/f'run{i}')
        (folder/name).write_bytes(raw + b'\n')
        refused(lambda: look(load_run(folder)))

KEPT = 'tune.safetensors', 'sae.safetensors', 'zero_shot/000000000.safetensors', 'zero_shot/about.json'

@pytest.mark.parametrize('name', KEPT)
def test_no_pickle_in_a_run_that_goes_on(name, tmp_path, done):
    folder = shutil.copytree(done, tmp_path/'run')
    for o in ('metrics.jsonl', 'model.safetensors'): (folder/o).unlink()  # not finished
    (file := folder/'checkpoint'/name).parent.mkdir(parents=True)
    if 'zero_shot/0' in name: write_about(folder)
    file.write_bytes(PICKLES['zip']())
    cfg = read_config(done)
    cfg.out_dir = str(folder)
    if 'zero_shot/0' in name:  # embeddings are made again, with a warning
        with pytest.warns(UserWarning, match='made again'): results = run(cfg, progress=False).results
        assert results and not MARK.exists()
    else: assert file.name in refused(run, cfg, progress=False)

def write_about(folder):
    "What belongs to the embeddings of the run."
    from sae_ft.experiment import Experiment
    cfg = read_config(folder)
    cfg.out_dir, cfg.save_every = str(folder), 0.
    exp = Experiment(cfg, progress=False)
    exp.zero_shot()
    exp.lock.release(force=True)

def test_code_beside_a_tokenizer_is_not_trusted(tmp_path, monkeypatch):
    place = shutil.copytree(ASSETS/'iconclip', tmp_path/'clip')
    about = json.loads((place/'open_clip_config.json').read_text())
    trusting = dict(trust_remote_code=True)
    about['model_cfg']['text_cfg'] |= dict(hf_tokenizer_name='stranger/tokenizer', tokenizer_kwargs=trusting)
    (place/'open_clip_config.json').write_text(json.dumps(about))
    given = []
    monkeypatch.setattr(open_clip, 'get_tokenizer', lambda *a, **kw: given.append(kw) or (lambda texts: None))
    load_clip(f'local-dir:{place}')
    assert given == [dict(trust_remote_code=False)]

# --- a run, and an SAE, to be harmed

@pytest.fixture(scope='module')
def done(tmp_path_factory):
    "The folder of a tiny finished run."
    root = tmp_path_factory.mktemp('done')
    for c in ('cat', 'dog'):
        (root/'data'/c).mkdir(parents=True)
        for i in range(10): Image.new('RGB', (8, 8), (20*i, 9, 90)).save(root/'data'/c/f'{i}.png')
    cfg = Config(dataset=str(root/'data'), epochs=1, batch_size=8, sae_epochs=2, precision='fp32',
                 device='cpu', log_every=1, cache=None, out_dir=str(root/'run'))
    return run(cfg, progress=False).folder

def quiet(f, *args):
    "Call it: a value or one of our sentences; anything else is an error of ours."
    t = time.time()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            f(*args)
    except EXPECTED as e: assert '\n' not in str(e) and str(e)
    assert time.time() - t < 10 and not MARK.exists()

LOOKS = (
    read_config, read_metrics, is_finished, load_run, reproduce, lambda o: load_run(o).results,
    lambda o: load_run(o).sae, lambda o: load_run(o).predictions, lambda o: load_run(o).epochs,
    lambda o: load_run(o)._repr_html_())

def look(folder):
    "Everything of a run that is read without a model."
    for f in LOOKS: quiet(f, folder)

FEW = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
single = st.none() | st.booleans() | st.integers(-10**25, 10**25) | st.floats() | st.text(max_size=12)
def nested(o): return st.lists(o, max_size=3) | st.dictionaries(st.text(max_size=8), o, max_size=3)
junk = st.recursive(single, nested, max_leaves=6)

def record(**names):
    "Values under these names: each of its own kind, or junk."
    return st.fixed_dictionaries({k: junk if v is junk else junk | v for k, v in names.items()})

def part_of(**names):
    "As `record`, and any of the names may be missing."
    return st.fixed_dictionaries({}, optional={k: junk if v is junk else junk | v for k, v in names.items()})

@st.composite
def harmed(draw, whole):
    "A file with bytes changed, put in and cut off, most of them near its beginning."
    raw = bytearray(whole)
    for _ in range(draw(st.integers(0, 6))):
        i = draw(st.integers(0, min(len(raw), 600)))
        raw[i:i + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(raw[:draw(st.integers(0, len(raw)) | st.just(len(raw)))])

def header(text, data=b''): return struct.pack('<Q', len(text)) + text + data

def tensor(dtype, shape, offsets):
    "A header of one tensor, which may be absurd, and four bytes."
    about = f'{{"a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}'
    return header(about.encode(), bytes(4))

HEADERS = [
    tensor('F32', [1000000000000, 1000000000], [0, 4]), tensor('F32', [1], [0, 999999999999]),
    tensor('X9', [1], [0, 4]), tensor('F32', [-1], [0, 4]),
    header(b'['*50_000), header(b'{"__metadata__": {"format": 3}}'), header(b'{"__metadata__": null}'),
    struct.pack('<Q', 2**63), struct.pack('<Q', 2**40) + b'{}', header(b'\xff\xfe{}'), header(b'{}'), b'',
    b'\0'*8]

def read_checkpoint(path): return Checkpoint(path).load()

@pytest.mark.parametrize('i', range(len(HEADERS)))
def test_absurd_headers(i, tmp_path):
    (path := tmp_path/'x.safetensors').write_bytes(HEADERS[i])
    for f in (read_tensors, SAE.load, read_checkpoint, lambda p: load_official(p, 4)): quiet(f, path)

@settings(max_examples=60, **FEW)
@given(data=st.data())
def test_any_bytes_as_tensors(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp('x')
    sae, kept, lens = folder/'s.safetensors', folder/'c.safetensors', folder/'lens'
    whole = TopKSAE(6, k=2)
    whole.save(sae)
    write_saelens(whole, lens)
    Checkpoint(kept).save(dict(sae=whole), at=1)
    for path in (sae, kept, lens/'sae_weights.safetensors', lens/'cfg.json'):
        path.write_bytes(data.draw(harmed(path.read_bytes()) | st.binary(max_size=60)))
    for f in (read_tensors, SAE.load, lambda p: load_official(p, 2)): quiet(f, sae)
    quiet(read_saelens, lens)
    quiet(read_checkpoint, kept)

KINDS = 'TopKSAE', 'BatchTopKSAE', 'JumpReLUSAE', 'SAE', 'x'
SIZES = dict(d=st.just(6), expansion=st.just(4), k=st.just(2))
SWITCHES = dict(normalize=st.just(True), bias=st.just(False), relu=st.just(True))

@settings(max_examples=60, **FEW)
@given(name=st.sampled_from(KINDS), config=junk | record(**SIZES, **SWITCHES))
def test_any_configuration_of_an_sae(name, config, tmp_path_factory):
    path = tmp_path_factory.mktemp('x')/'s.safetensors'
    notes = dict(format=f'sae_ft.{name}', config=json.dumps(config))
    save_file(dict(TopKSAE(6, k=2).state_dict()), path, metadata=notes)
    quiet(SAE.load, path)

HUGE = [dict(d=d, expansion=expansion, k=1) for d, expansion in (
    (10**9, 10**9), (6, 1e300), (6, math.inf), (6, math.nan), (-6, 4), (200_000, 400))]

@pytest.mark.parametrize('config', HUGE, ids=str)
def test_a_huge_sae_is_refused_before_memory_is_taken(config, tmp_path):
    import psutil
    notes = dict(format='sae_ft.TopKSAE', config=json.dumps(config))
    save_file(dict(TopKSAE(6, k=2).state_dict()), tmp_path/'s', metadata=notes)
    before = psutil.Process().memory_info().rss
    refused(SAE.load, tmp_path/'s')
    assert psutil.Process().memory_info().rss - before < 2e8

OURS = junk | record(kind=st.just('TopKSAE'), config=record(d=st.just(6), k=junk))
ARCHITECTURES = st.sampled_from(['topk', 'standard', 'jumprelu'])
LENS = part_of(d_in=st.just(6), d_sae=st.just(24), architecture=ARCHITECTURES, k=junk,
               normalize_activations=junk, metadata=record(sae_ft=OURS))

@settings(max_examples=60, **FEW)
@given(cfg=junk | LENS)
def test_any_saelens_configuration(cfg, tmp_path_factory):
    folder = tmp_path_factory.mktemp('x')
    write_saelens(TopKSAE(6, k=2), folder)
    (folder/'cfg.json').write_text(json.dumps(cfg))
    quiet(read_saelens, folder)

@settings(max_examples=40, **FEW)
@given(data=st.data())
def test_any_bytes_in_a_run_folder(data, done, tmp_path_factory):
    folder = shutil.copytree(done, tmp_path_factory.mktemp('x')/'run')
    names = st.sampled_from(['config.json', 'metrics.jsonl', 'sae.safetensors', 'predictions.parquet'])
    for name in data.draw(st.sets(names, min_size=1)):
        (folder/name).write_bytes(data.draw(harmed((folder/name).read_bytes()) | st.binary(max_size=60)))
    look(folder)

FILES = 'config.json', 'metrics.jsonl', 'model.safetensors', 'sae.safetensors', 'predictions.parquet'

def told(folder):
    "All that a run folder says."
    run = load_run(folder)
    answers = run.predictions.to_dict('list')
    weights = [digest(o.state_dict()) for o in (run.classifier, run.sae)]
    return json.dumps([run.results, vars(run.config), run.provenance, run.metrics, answers, weights])

def test_a_byte_damaged_at_random_is_said_or_changes_nothing(done, tmp_path):
    folder, rng, said = shutil.copytree(done, tmp_path/'run'), random.Random(0), []
    want, names = told(folder), sorted(o.name for o in folder.iterdir() if o.is_file())
    assert set(FILES) <= set(names)
    for i in range(50):
        file = folder/FILES[i % len(FILES)]
        raw = file.read_bytes()
        at = rng.randrange(len(raw))
        file.write_bytes(raw[:at] + bytes([raw[at] ^ rng.randrange(1, 256)]) + raw[at + 1:])
        try: assert told(folder) == want, (file.name, at)
        except EXPECTED as e:
            assert '\n' not in str(e)
            said.append(file.name)
        file.write_bytes(raw)
    assert len(said) > 30 and set(said) == set(FILES)

SETTINGS = st.dictionaries(st.sampled_from(list(RULES)), junk, max_size=4)
MADE_BY = dict(versions=junk, hardware=junk, revision=junk)
ABOUT = st.fixed_dictionaries(dict(settings=junk | SETTINGS), optional=MADE_BY)
LINE = st.fixed_dictionaries(dict(event=junk | st.just('end')), optional=dict(before=junk, after=junk))

@settings(max_examples=60, **FEW)
@given(about=junk | ABOUT, lines=st.lists(junk | LINE, max_size=4))
def test_any_values_in_a_run_folder(about, lines, done, tmp_path_factory):
    folder = shutil.copytree(done, tmp_path_factory.mktemp('x')/'run')
    (folder/'config.json').write_text(json.dumps(about))
    (folder/'metrics.jsonl').write_text(''.join(json.dumps(o) + '\n' for o in lines))
    look(folder)

@settings(max_examples=100, **FEW)
@given(st.dictionaries(st.sampled_from(list(RULES)), junk, min_size=1, max_size=4))
def test_any_settings(values): quiet(lambda: Config(**values).check())

VALUES = (
    None, False, True, 0, -1, 1.5, math.nan, math.inf, 10**400, '', ' ', 'x'*5000, 'x,'*5000, '\0',
    '~nobody/x', b'x', [], [None], ['{}', 1], (), {}, {'a': 1}, object())

@pytest.mark.parametrize('name', RULES)
def test_every_setting(name):
    "Values of every kind, a text longer than a file name can be, and one that no file name can hold."
    for value in VALUES:
        quiet(lambda: Config(**{name: value}).check())

def test_many_class_names_in_one_text():
    names = ', '.join(f'animal {i}' for i in range(100))
    assert Config(class_names=names).check() and len(listed(names, ',')) == 100

@settings(max_examples=40, **FEW)
@given(data=st.data())
def test_any_bytes_as_json_or_journal(data, tmp_path_factory):
    path = tmp_path_factory.mktemp('x')/'x'
    whole = b'{"event": "end", "x": [1, 2]}\n{"event": "a"}\n'
    path.write_bytes(data.draw(st.binary(max_size=80) | harmed(whole)))
    quiet(read_json, path)
    quiet(Journal(path).read)

ABSURD = ('['*200_000, '{"settings": ' + '['*200_000, '{"a": ' + '9'*6000 + '}',
          '{"settings": {"seed": 1e999}}', '"x"', 'null', '\ufeff{}')

@pytest.mark.parametrize('text', ABSURD, ids=lambda o: o[:20])
def test_absurd_json(text, done, tmp_path):
    folder = shutil.copytree(done, tmp_path/'run')
    (folder/'config.json').write_text(text)
    look(folder)
    (folder/'metrics.jsonl').write_text(text + '\n')
    look(folder)

def test_a_model_that_does_not_fit_is_named(done, tmp_path):
    folder = shutil.copytree(done, tmp_path/'run')
    tensors, _ = read_tensors(folder/'model.safetensors')
    changes = (
        (lambda t: t.pop('visual.conv1.weight'), "lacks the model's tensor 'visual.conv1.weight'"),
        (lambda t: t.update(extra=torch.zeros(1)), "holds a tensor 'extra'"),
        (lambda t: t.update({'head.weight': torch.zeros(2, 5)}), "'head.weight' in"))
    for change, says in changes:
        mine = dict(tensors)
        change(mine)
        save_file(mine, folder/'model.safetensors')
        assert says in refused(lambda: load_run(folder).classifier)

# --- places

PLACES = ('metrics.jsonl', 'config.json', 'checkpoint', 'epoch-1.safetensors', 'model.safetensors',
          '.config.json.part')

@pytest.mark.parametrize('name', PLACES)
def test_links_in_a_run_folder_lead_nowhere(name, done, tmp_path):
    folder, outside = shutil.copytree(done, tmp_path/'run'), tmp_path/'outside'
    outside.mkdir()
    for o in ('metrics.jsonl', 'model.safetensors'): (folder/o).unlink()  # not finished: a run would go on
    target = outside if '.' not in name or name.endswith('.part') else outside/'file'
    if target != outside: target.write_bytes((done/name).read_bytes() if (done/name).exists() else b'mine')
    (outside/'own').write_text('mine')
    (folder/name).unlink(missing_ok=True)
    (folder/name).symlink_to(target)
    def seen(): return {o.name: o.read_bytes() for o in outside.iterdir()}
    before, cfg = seen(), read_config(done)
    cfg.out_dir = str(folder)
    assert 'is a link' in refused(run, cfg, progress=False) and 'is a link' in refused(load_run, folder)
    assert seen() == before

@pytest.mark.parametrize('name', FILES)
def test_a_queue_does_not_hang(name, done, tmp_path):
    folder = shutil.copytree(done, tmp_path/'run')
    (folder/name).unlink()
    os.mkfifo(folder/name)
    look(folder)

def test_odd_names_of_epochs(done, tmp_path):
    folder = shutil.copytree(done, tmp_path/'run')
    for o in ('epoch-x', 'epoch-', 'epoch-1e9', 'epoch-2', 'epoch--1'): (folder/f'{o}.safetensors').touch()
    assert list(load_run(folder).epochs) == [2]

# --- texts

def test_names_in_a_report_are_escaped(done, tmp_path):
    folder = shutil.copytree(done, tmp_path/'<b>run')
    lines = Journal(folder/'metrics.jsonl').read()
    result = dict(kind='<script>', metric='<script>alert(1)</script>', value=.5, n=3)
    lines[-1] |= dict(before={'<img src=x>': result}, after={'<img src=x>': result})
    (folder/'metrics.jsonl').write_text(''.join(json.dumps(o) + '\n' for o in lines))
    page = load_run(folder)._repr_html_()
    assert '&lt;script&gt;' in page and not any(o in page for o in ('<script', '<img', '<b>'))

def test_a_command_can_be_pasted(done, tmp_path):
    "Whatever settings, versions and revision say, the command is one papermill with these words."
    folder = shutil.copytree(done, tmp_path/'run')
    about = read_json(folder/'config.json')
    harm = "$(touch executed)`touch executed`'; touch executed #\n\""
    names = ["a'b", '$(touch executed)']
    about['settings'] |= dict(dataset=harm, suite='-r lam', class_names=names, lam=2.5, keep_epochs=True)
    versions, hardware = dict(torch='1\ntouch executed'), dict(threads='1; touch executed')
    about |= dict(revision='x\ntouch executed', versions=versions, hardware=hardware)
    write_json(folder/'config.json', about)
    text = reproduce(folder, 'again')
    (tmp_path/'bin').mkdir()
    script = f'#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open("said", "w"))\n'
    (tmp_path/'bin'/'papermill').write_text(script)
    (tmp_path/'bin'/'papermill').chmod(0o755)
    path = f"{tmp_path/'bin'}:{os.environ['PATH']}"
    subprocess.run(['sh', '-c', text], env=os.environ | {'PATH': path}, check=True)
    said = json.loads(Path('said').read_text())
    assert not MARK.exists() and said[:2] == ['nbs/05_finetune.ipynb', 'again.ipynb']
    def given(name): return said[said.index(name) + 1]
    assert (given('dataset'), given('lam'), given('keep_epochs')) == (harm, '2.5', 'True')
    assert json.dumps(dict(class_names=names)) in said
