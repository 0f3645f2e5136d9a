"CONTRIBUTING.md: each way to add something works as it is written there."
import re

import pytest

from current import ROOT
from test_project import python

TEXT = (ROOT/'CONTRIBUTING.md').read_text(encoding='utf-8')
BLOCK = re.compile(r'^## A (?:kind of )?(\w+)\n.*?^```python\n(.*?)^```', re.MULTILINE | re.DOTALL)
BLOCKS = dict(BLOCK.findall(TEXT))
CHECKS = dict(
    method='''
import torch
from sae_ft.methods import get_method
from sae_ft.plumbing.style import colour_of
from sae_ft.settings import Config
name = list(METHODS)[-1]
assert list(METHODS) == [m.name for m in METHODS.values()]
assert get_method(name).doc and Config(method=name).method == name
assert METHOD_COLOURS[name].keys() == METHOD_COLOURS['ft'].keys()
assert colour_of(name) == METHOD_COLOURS[name]['c']
styles = [tuple(o.values()) for o in METHOD_COLOURS.values()]
assert set(METHODS) <= set(METHOD_COLOURS) and len(set(styles)) == len(styles)
torch.manual_seed(0)
z0 = torch.randn(6, 8)
price, z = METHODS[name].regulariser(None), (z0 + torch.randn(6, 8)).requires_grad_()
assert price(z0, z0).item() == 0 < price(z, z0).item()
price(z, z0).backward()
assert z.grad.abs().sum() > 0
assert (2*price)(z, z0).item() == 2*price(z, z0).item()
''',
    suite='''
assert suite.name == 'papers' and suite.classnames == words and len(suite.train) == len(suite.val) == 30
assert {k: (o.kind, o.metric, o.classnames) for k, o in suite.splits.items()} == dict(
    same=('id', 'accuracy', None), small=('far', 'accuracy', None), two=('transfer', 'macro-F1', two))
assert suite.splits['two'].data.features['label'].names == two and suite.templates[0] == '{} paper'
''',
    SAE='''
z = torch.randn(20, 16)
s = sae.encode(z)
assert type(sae) is LargestSAE and ((s != 0).sum(1) == 4).all() and (s < 0).any() and history[-1]['fvu'] < 1
back = SAE.load('largest.safetensors')
assert type(back) is LargestSAE and torch.equal(back.encode(z), s)
from sae_ft.losses_sae import Preservation
assert Preservation(sae)(z, z).item() == 0
''',
    figure='''
ax, = fig.axes
dots = {(o.get_color(), o.get_marker()) for o in ax.lines}
assert len(ax.lines) > 40 and (METHOD_COLOURS['sae-ft']['c'], METHOD_COLOURS['sae-ft']['marker']) in dots
''')

def test_every_way_to_add_something_is_tested(): assert set(BLOCKS) == set(CHECKS)

@pytest.mark.parametrize('name', CHECKS)
def test_it_works_as_it_is_written(name, tmp_path):
    (tmp_path/'nbs').symlink_to(ROOT/'nbs')
    done = python(BLOCKS[name] + CHECKS[name], tmp_path, ROOT, MPLBACKEND='agg')
    assert done.returncode == 0, done.stderr
