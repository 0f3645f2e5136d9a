"A tiny run with class names that are HTML, its study, and its page: fixtures of conftest."
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sae_ft.experiment import run
from sae_ft.features import study_features
from sae_ft.report import write_report
from sae_ft.settings import Config

EVIL = '<script>alert(1)<', '<img src=x onerror="alert(1)">', "a'b&c"  # a folder's name may not hold a slash

HARMLESS = 'html head meta title style body h1 h2 h3 p div span img table thead tbody tr th td i br pre code'

class Tags(HTMLParser):
    "Collects the tags of a page, its attributes that are handlers, and where its pictures come from."
    def __init__(self):
        super().__init__()
        self.found, self.handlers, self.sources = set(), [], []

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.handlers += [k for k, _ in attrs if k.startswith('on')]
        self.sources += [v for k, v in attrs if k in ('src', 'href')]

def assert_harmless(
    html,      # a page
    also=(),   # further tags that the page has of itself
):
    "Nothing in it runs or is loaded: no name or metadata of a picture became a tag."
    page = Tags()
    page.feed(html)
    assert page.found <= {*HARMLESS.split(), *also} and not page.handlers and 'metadata(1)' not in html
    assert all(o.startswith('data:image/') for o in page.sources)

def make_run(root):
    "Settings of a tiny run below `root`, and its folder."
    beside = PngInfo()
    for name in ('Comment', '<b>Title</b>'): beside.add_text(name, '<script>metadata(1)</script>')
    for split in ('train', 'val', 'test', 'other <i>'):
        for hue, name in enumerate(EVIL):
            folder = root/'data'/split/name
            folder.mkdir(parents=True)
            for i in range(12):
                im = Image.new('RGB', (12, 12), (80*hue, 20*i, 255 - 20*i))
                im.save(folder/f'{i} <u>.png', pnginfo=beside)
    cfg = Config(
        dataset=str(root/'data'), method='ft', epochs=2, batch_size=8, sae_epochs=3, precision='fp32',
        device='cpu', lr=3e-3, out_dir=str(root/'run <b>'))
    return cfg, run(cfg, progress=False).folder

@pytest.fixture(scope='session')
def tiny_run(tmp_path_factory):
    "Settings and folder."
    return make_run(tmp_path_factory.mktemp('tiny <b>'))

@pytest.fixture(scope='session')
def study(tiny_run): return study_features(tiny_run[1], progress=False)

@pytest.fixture(scope='session')
def still_study(tiny_run):
    "The same pictures, of a run that changed nothing: no epoch of training."
    cfg = replace(tiny_run[0], method='zero-shot', epochs=0, out_dir=tiny_run[0].out_dir + ' still')
    return study_features(run(cfg, progress=False), progress=False)

@pytest.fixture(scope='session')
def report_page(study): return write_report(study)
