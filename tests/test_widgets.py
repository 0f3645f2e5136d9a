"Widgets without a browser: they follow their controls, and show a sentence where something is wrong."
import json, re

import pandas as pd
import pytest
from PIL import Image

from current import ROOT
from sae_ft import widgets
from sae_ft.concepts import strongest
from sae_ft.features import RANKINGS
from sae_ft.runs import load_run
from sae_ft.widgets import FeatureBrowser, ImageInspector, TradeOff, Widget, as_text, trade_off
from states import STATE, VIEW, trimmed, views
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
    other = b.controls['rank'].value + 1
    b.controls['rank'].value = other
    assert b.out.value != first and f'rank {other} of' in b.out.value
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
    o.controls['row'].value += 1
    assert 'yours' not in o.out.value and 'cannot be used' not in o.out.value

def test_a_widget_leaves_its_controls_and_a_page_that_needs_none(study, monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, 'display', lambda o, raw, display_id=False: shown.append(o))
    FeatureBrowser(study)._ipython_display_()
    controls, page = shown
    assert VIEW in controls and 'Run All Cells' in controls['text/html']
    assert controls['text/plain'] == 'FeatureBrowser: split, most, name or number, rank'
    assert set(page) == {'text/html', 'text/plain'} and page['text/html'].count('<img') > 3

class Place:
    "Of a page, in a notebook."
    def update(self, bundle, raw): self.bundle = bundle

def test_a_page_is_renewed_wherever_it_is_shown(study):
    b, places = FeatureBrowser(study), [Place(), Place()]
    b.out.places += places
    b.controls['rank'].value = b.controls['rank'].value % 5 + 1
    assert [o.bundle for o in places] == [b.out.bundle()]*2 and 'rank' in places[0].bundle['text/plain']

def test_the_text_of_a_page_has_words_for_its_pictures():
    picture = '<img src="data:," alt="a &quot;cat&quot;">'
    page = f'<p>a &lt;b&gt;</p><table><tr><td>{picture}0.5</td></tr></table>end'
    assert as_text(page) == 'a <b>\n[a "cat"] 0.5\nend'

def test_every_picture_of_a_page_is_described(study):
    for o in (FeatureBrowser(study), ImageInspector(study)):
        assert re.findall('<img', o.out.value) and not re.findall(r'<img (?![^>]*alt="[^"])', o.out.value)

def test_the_browser_starts_at_a_feature_that_its_pictures_bear_out(study):
    "Of the first twenty, none has a name that more of its strongest pictures have."
    b = FeatureBrowser(study)
    split = b.value('split')
    def fitting(rank):
        o, words = b.found().iloc[rank - 1], study.suite.classnames
        shown = [r for s in (study.before, study.after) for r, _ in strongest(s[split].s, int(o.name), b.n)]
        return sum(words[study.labels[split][r]] == o['name'] for r in shown)
    start = b.controls['rank'].value
    assert 1 <= start <= 20 and fitting(start) == max(map(fitting, range(1, 21)))

def test_the_inspector_starts_at_a_picture_that_was_lost_or_won(study, still_study):
    o = ImageInspector(study)
    was, now = study.right(o.value('split'))
    assert (was != now).any() and was[o.value('row')] != now[o.value('row')]
    assert ImageInspector(still_study).value('row') == 0

def test_the_trade_off_starts_at_what_has_most_on_both_axes():
    rows = [('ft', 1., 1., 90, 40), ('ft', 1., .5, 85, 60), ('l2', 3., 1., 99, 99), ('l2', 9., 1., 10, 10)]
    o = TradeOff(pd.DataFrame(rows, columns=['method', 'lam', 'alpha', 'id', 'far']))
    assert o.chosen() == dict(method='ft', lam=1., alpha=.5, id=85, far=60)
    o.controls['method'].value = 'l2'
    assert o.chosen()['lam'] == 3

# --- what a saved notebook holds

def test_state_is_trimmed_to_what_outputs_show():
    def model(kind, **state): return dict(model_name=kind, model_module='m', state=state)
    state = dict(
        box=model('BoxModel', children=['IPY_MODEL_text'], layout='IPY_MODEL_lay'), gone=model('X'),
        text=model('TextModel', value='', tooltip=None), lay=model('LayoutModel', top=None, width='9'))
    cell = dict(cell_type='code', outputs=[dict(data={VIEW: dict(model_id='box')})])
    nb = dict(cells=[cell], metadata=dict(widgets={STATE: dict(state=state)}))
    new = trimmed(nb)
    found = new['metadata']['widgets'][STATE]['state']
    assert list(found) == ['widget-0000', 'widget-0001', 'widget-0002']
    box = dict(children=['IPY_MODEL_widget-0001'], layout='IPY_MODEL_widget-0002')
    assert found['widget-0000']['state'] == box
    assert found['widget-0001']['state'] == dict(value='', tooltip=None)   # a control's are kept as they are
    assert found['widget-0002']['state'] == dict(width='9')
    assert views(new) == [dict(model_id='widget-0000')] and trimmed(new) == new and 'gone' in state
    cell['outputs'].clear()
    assert trimmed(nb)['metadata'] == {}

@pytest.mark.parametrize('name, boxes', [('10_widgets', 3), ('10_widgets_watch', 2)])
def test_a_saved_notebook_has_its_controls_and_little_else(name, boxes):
    nb = json.loads((ROOT/'nbs'/f'{name}.ipynb').read_text(encoding='utf-8'))
    assert trimmed(nb) == nb, 'run python tests/states.py'
    saved = nb['metadata']['widgets']
    assert len(json.dumps(saved)) < 40_000
    kinds = [saved[STATE]['state'][o['model_id']]['model_name'] for o in views(nb)]
    assert kinds == ['VBoxModel']*boxes

def test_trade_off_of_a_run_has_its_two_models_at_the_ends(tiny_run):
    record, t = load_run(tiny_run[1]).results, trade_off([tiny_run[1]], (0., 1.))
    ends = [100*record[o]['test']['value'] for o in ('before', 'after')]
    assert t.id.tolist() == pytest.approx(ends, abs=1e-4)
