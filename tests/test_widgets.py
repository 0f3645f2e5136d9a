"Widgets without a browser: they follow their controls, and show a sentence where something is wrong."
import re

import pandas as pd
import pytest
from PIL import Image

from sae_ft.features import RANKINGS
from sae_ft.runs import load_run
from sae_ft.widgets import FeatureBrowser, ImageInspector, TradeOff, Widget, trade_off
from studies import assert_harmless

class Broken(Widget):
    def __init__(self):
        self.controls = {}
        self.assemble([])

    def page(self): raise ValueError('a <b>bad</b> value')

def test_a_bad_value_is_shown_as_a_sentence_not_raised():
    said = '<p>a &lt;b&gt;bad&lt;/b&gt; value</p>'
    assert Broken().out.value == f'<div style="line-height:1.4">{said}</div>'

def test_a_table_without_runs_gets_a_sentence():
    with pytest.raises(ValueError, match=re.escape("lacks the column 'id'")) as e:
        TradeOff(pd.DataFrame(dict(method=[], lam=[], alpha=[])))
    assert '\n' not in str(e.value)

def test_the_browser_follows_its_controls(study):
    b = FeatureBrowser(study)
    first = b.out.value
    b.controls['rank'].value = 7
    assert b.out.value != first and 'rank 7 of' in b.out.value
    b.controls['query'].value = 'ALERT'
    assert b.controls['rank'].value == 1 and b.found().name.str.contains('alert').all()
    for how in RANKINGS:
        b.controls['how'].value = how
        assert_harmless(b.out.value)

def test_the_inspector_takes_an_upload_and_refuses_what_is_none(study, tmp_path):
    o = ImageInspector(study)
    first = o.out.value
    assert_harmless(first, also=['b'])
    Image.new('RGB', (30, 20), 'red').save(tmp_path/'x.png')
    def give(raw):
        file = dict(name='x', type='image/png', size=len(raw), content=memoryview(raw))
        file['last_modified'] = pd.Timestamp(0)
        o.controls['upload'].value = (file,)
    give((tmp_path/'x.png').read_bytes())
    assert 'yours' in o.out.value and o.out.value != first
    give(b'\x89PNG\r\n\x1a\n')
    assert 'cannot be used' in o.out.value
    o.controls['row'].value = 2
    assert 'yours' not in o.out.value and 'cannot be used' not in o.out.value

def test_a_widget_leaves_a_static_page_where_nothing_can_react(study, monkeypatch):
    b = FeatureBrowser(study)
    for o in ('JPY_SESSION_NAME', 'VSCODE_PID', 'COLAB_RELEASE_TAG'): monkeypatch.delenv(o, raising=False)
    assert set(b._repr_mimebundle_()) == {'text/html', 'text/plain'}
    monkeypatch.setenv('JPY_SESSION_NAME', 'x.ipynb')
    both = b._repr_mimebundle_()
    assert 'application/vnd.jupyter.widget-view+json' in both and both['text/html'].count('<img') > 3

def test_trade_off_of_a_run_has_its_two_models_at_the_ends(tiny_run):
    record, t = load_run(tiny_run[1]).results, trade_off([tiny_run[1]], (0., 1.))
    ends = [100*record[o]['test']['value'] for o in ('before', 'after')]
    assert t.id.tolist() == pytest.approx(ends, abs=1e-4)
