"What fine-tuning did to the features: tables, evidence, the page for a colleague, widgets; and the committed counts against the committed runs."
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from current import ROOT
from sae_ft.concepts import agreement, called, name_features, top_words, vocabulary
from sae_ft.plumbing.style import thumb
from sae_ft.experiment import run
from sae_ft.runs import load_run
from sae_ft.evidence import evidence_behind, blame, evidence, show_answers, flipped_answers
from sae_ft.features import RANKINGS, changed, class_table, compare, feature_table, gallery, missing, plot_strengths, ranked, study_features, strengths
from sae_ft.report import write_report
from sae_ft.settings import Config
from sae_ft.widgets import FeatureBrowser, ImageInspector, TradeOff, Widget, trade_off

EVIL = '<script>alert(1)<', '<img src=x onerror="alert(1)">', "a'b&c"  # class names; a folder's name may not hold a slash

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "Settings of a tiny run with class names that are HTML, and its folder."
    root = tmp_path_factory.mktemp('tiny <b>')
    for split in ('train', 'val', 'test', 'other <i>'):
        for hue, name in enumerate(EVIL):
            (folder := root/'data'/split/name).mkdir(parents=True)
            for i in range(12): Image.new('RGB', (12, 12), (80*hue, 20*i, 255 - 20*i)).save(folder/f'{i} <u>.png')
    cfg = Config(dataset=str(root/'data'), method='ft', epochs=2, batch_size=8, sae_epochs=3, precision='fp32', device='cpu', lr=3e-3, out_dir=str(root/'run <b>'))
    return cfg, run(cfg, progress=False).folder

@pytest.fixture(scope='module')
def seen(tiny): return study_features(tiny[1], progress=False)

# --- tables

def test_tables_against_loops():
    g = torch.Generator().manual_seed(0)
    s0, s = (torch.rand(40, 6, generator=g)*(torch.rand(40, 6, generator=g) < .3) for _ in range(2))
    t = feature_table(s0, s)
    for i in range(6):
        a, b = s0[:, i].tolist(), s[:, i].tolist()
        on = [v for v in a if v]
        assert t.freq_before[i] == pytest.approx(len(on)/40) and t.mean_before[i] == pytest.approx(sum(on)/len(on))
        assert t.added[i] == pytest.approx(sum(not x and bool(y) for x, y in zip(a, b))/40)
        assert t.removed[i] == pytest.approx(sum(bool(x) and not y for x, y in zip(a, b))/40)
        kept = [(x, y) for x, y in zip(a, b) if x and y]
        assert t.kept[i] == pytest.approx(len(kept)/40) and t.ratio[i] == pytest.approx(sum(y for _, y in kept)/sum(x for x, _ in kept), rel=1e-5)
    assert list(feature_table(s, s0).added) == list(t.removed)          # the other way round
    same = changed(feature_table(s, s))
    assert same.pop('strength') == 1 and set(same.values()) == {0}
    for how in RANKINGS: assert ranked(t, how, 6).score.is_monotonic_decreasing

def test_strengths_are_compared_where_a_feature_is_on_before_and_after():
    s0 = torch.tensor([[9., 1, 1, 0], [1, 1, 4, 0], [0, 2, 0, 1]])
    s = torch.tensor([[0., 2, .5, 1], [1, 2, 2, 1], [0, 4, 3, 0]])   # lost where strongest; doubled; halved and added; never kept
    t = feature_table(s0, s)
    assert t.ratio[:3].tolist() == [1, 2, .5] and np.isnan(t.ratio[3]) and strengths(t, .5).index.tolist() == [1, 2]
    assert (ranked(t, 'strengthened').index[0], ranked(t, 'weakened').index[0]) == (1, 2) and ranked(t, 'weakened').score.tolist()[1:3] == [0, 0]
    n = changed(t)
    assert (n['strengthened'], n['weakened'], n['strength']) == (1, 1, 1)
    assert torch.isnan(torch.tensor(changed(feature_table(s0, 0*s))['strength']))   # nothing kept: no strength

def test_signed_codes_count_as_on():
    assert feature_table(torch.tensor([[-1.]]), torch.tensor([[-2.]])).ratio[0] == 2
    assert feature_table(torch.tensor([[-1.]]), torch.tensor([[0.]])).removed[0] == 1

def test_classes_of_a_feature_add_up(seen):
    split = next(iter(seen.before))
    t = seen.classes(split, 0)
    assert t.pictures.sum() == len(seen.labels[split])
    assert (t.pictures*t.freq_after).sum() == pytest.approx((seen.after[split].s[:, 0] != 0).sum().item())

# --- what is seen

def test_the_ends_of_the_average_are_the_two_models(tiny, seen):
    zero, one = (study_features(tiny[1], start=seen, alpha=a, progress=False) for a in (0., 1.))
    for k in seen.before:
        assert torch.allclose(zero.after[k].z, seen.before[k].z, atol=1e-5) and torch.allclose(one.after[k].z, seen.after[k].z, atol=1e-5)
    assert changed(zero.table(k))['per_picture_added'] == 0

def test_accuracy_is_that_of_the_record(tiny, seen):
    t, record = compare([seen]).set_index('split'), load_run(tiny[1]).results
    for k in t.index:
        assert t.accuracy[k] == pytest.approx(record['after'][k]['value'], abs=1e-6)
        assert t.accuracy_before[k] == pytest.approx(record['before'][k]['value'], abs=1e-6)

def test_evidence_adds_up_to_logits_exactly(seen):
    for split in seen.before:
        rows = list(range(8))
        c, other = torch.zeros(8, dtype=torch.long), torch.ones(8, dtype=torch.long)
        for after, side in ((False, seen.before), (True, seen.after)):
            each, rest = evidence(seen, split, rows, c, other, after)
            with torch.no_grad(): logits = seen.models[after].classify(side[split].z[rows])
            b = seen.models[after].head.bias.detach()
            assert torch.allclose(each.sum(1) + rest, (logits[:, 0] - b[0]) - (logits[:, 1] - b[1]), atol=1e-3)

def test_turned_answers(seen):
    for split in seen.before:
        a, b = seen.right(split)
        assert len(flipped_answers(seen, split, 'mended')) - len(flipped_answers(seen, split, 'broken')) == b.sum() - a.sum()

@pytest.mark.parametrize('call,need', [
    (lambda o: study_features(o.run, ['nothing'], progress=False), "unknown split 'nothing'"),
    (lambda o: gallery(o, [10**6], 'test'), 'there is no feature 1000000'),
    (lambda o: gallery(o, [0], 'nothing'), "unknown split 'nothing'"),
    (lambda o: evidence_behind(o, 'test', 99), 'there is no picture 99'),
    (lambda o: flipped_answers(o, 'test', 'lost'), "must be 'broken' or 'mended'"),
    (lambda o: ranked(o.table('test'), 'x'), "unknown ranking 'x'"),
    (lambda o: name_features(o.sae, torch.zeros(1, o.sae.d), ['a']), 'two words or more'),
    (lambda o: TradeOff(pd.DataFrame(dict(method=[], lam=[], alpha=[]))), "lacks the column 'id'")])
def test_bad_input_gets_a_sentence(seen, call, need):
    with pytest.raises(ValueError, match=re.escape(need)) as e: call(seen)
    assert '\n' not in str(e.value)

def test_other_pictures_are_not_compared(tiny, seen):
    other = run(replace(tiny[0], limit=9, out_dir=tiny[0].out_dir + '2'), progress=False)
    with pytest.raises(ValueError, match='differ in limit'): study_features(other, start=seen, progress=False)

def test_the_curve_of_strengths_shows_every_kept_feature(seen):
    split = next(iter(seen.before))
    ratio = strengths(seen.table(split))
    drawn = plot_strengths([seen], (split,)).axes[0].lines[0].get_xdata()
    assert len(ratio) > 1 and sorted(ratio) == pytest.approx(drawn[1:])

# --- names

def test_names_that_are_right_agree_fully_and_shuffled_ones_do_not():
    "100 features, each of one class, named rightly."
    n = 100
    s, y, words = torch.eye(n).repeat_interleave(10, 0), torch.arange(n).repeat_interleave(10), [f'w{i}' for i in range(n)]
    share = top_words(s, called(words, y, words))
    t = pd.DataFrame(dict(name=words, confidence=np.linspace(0, 1, n)))
    score = agreement(t, words, share)
    assert score.loc['all', 'agreement'] == score.loc['all', 'ceiling'] == 1 and score.loc['all', 'random'] == pytest.approx(1/n, abs=.01)
    assert score.loc['all', 'features'] == n and score.features[:-1].tolist() == [25]*4
    wrong = t.assign(name=np.roll(words, 1))
    assert agreement(wrong, words, share).loc['all', 'agreement'] == 0

def test_an_order_of_words_that_no_hash_changes():
    captions = ['one two', 'two one', 'three']*5
    assert vocabulary(captions, 5) == ['one', 'two', 'three']

# --- the page

@pytest.fixture(scope='module')
def page(seen): return write_report(seen)

def test_the_report_is_one_small_file_that_loads_nothing(page):
    text = page.read_text(encoding='utf-8')
    assert page.name == 'report.html' and page.stat().st_size < 5e6
    assert not re.search(r'https?://|<script|<link|<iframe|@import|url\(', text)
    assert all(o.startswith('data:image/') for o in re.findall(r'src="([^"]*)"', text)) and text.count('<img') > 20
    assert "default-src 'none'" in text

def test_the_report_escapes_names(page):
    text = page.read_text(encoding='utf-8')
    for evil in (*EVIL[:2], 'other <i>', '<u>', '<b>'): assert evil not in text
    assert '&lt;script&gt;alert(1)&lt;' in text and 'other &lt;i&gt;' in text
    import html.parser
    class Tags(html.parser.HTMLParser):
        found, handlers = set(), []
        def handle_starttag(self, tag, attrs):
            self.found.add(tag)
            self.handlers += [k for k, _ in attrs if k.startswith('on')]
    (p := Tags()).feed(text)
    assert p.found <= set('html head meta title style body h1 h2 h3 p div span img table thead tbody tr th td i br pre'.split()) and not p.handlers

def test_the_report_goes_where_it_is_told_and_twice_gives_the_same(seen, page, tmp_path):
    again = write_report(seen, tmp_path/'x.html')
    assert again == tmp_path/'x.html' and len(again.read_text()) == len(page.read_text())

def test_a_report_with_other_words_and_of_a_run_that_changed_nothing(tiny, tmp_path):
    "A vocabulary of the caller's; then no epoch of training: nothing added, nothing broken."
    text = write_report(study_features(tiny[1], words=['apple', 'round thing', EVIL[0]], progress=False), tmp_path/'a.html').read_text(encoding='utf-8')
    assert 'apple (' in text or 'round thing (' in text
    still = run(replace(tiny[0], method='zero-shot', epochs=0, out_dir=str(tmp_path/'zero')), progress=False)
    o = study_features(still, progress=False)
    assert not flipped_answers(o, 'test', 'broken') and blame(o, 'test', 'broken').empty and changed(o.table('test'))['per_picture_added'] == 0
    assert 'Answers that fine-tuning' not in write_report(o, tmp_path/'b.html').read_text(encoding='utf-8')

def test_features_that_are_on_in_few_pictures_have_no_agreement():
    share = top_words(torch.eye(5), torch.ones(5, 3))
    score = agreement(pd.DataFrame(dict(name=['a']*5, confidence=[.1]*5)), list('abc'), share)
    assert score.features.max() == 0

def test_html_of_pictures_is_escaped(seen):
    split = next(iter(seen.before))
    for o in (gallery(seen, [0, 1, 2], split).data, show_answers(seen, split, [0, 13, 25]).data):
        assert '<script' not in o and 'onerror="' not in o

# --- widgets

class Broken(Widget):
    def __init__(self): self.controls = {}; self.assemble([])
    def page(self): raise ValueError('a <b>bad</b> value')

def test_a_bad_value_is_shown_as_a_sentence_not_raised():
    assert Broken().out.value == '<div style="line-height:1.4"><p>a &lt;b&gt;bad&lt;/b&gt; value</p></div>'

def test_the_browser_follows_its_controls(seen):
    b = FeatureBrowser(seen)
    first = b.out.value
    b.controls['rank'].value = 7
    assert b.out.value != first and 'rank 7 of' in b.out.value
    b.controls['query'].value = 'ALERT'
    assert b.controls['rank'].value == 1 and b.found().name.str.contains('alert').all() and '<script' not in b.out.value
    for how in RANKINGS: b.controls['how'].value = how

def test_the_inspector_takes_an_upload_and_refuses_what_is_none(seen, tmp_path):
    o = ImageInspector(seen)
    first = o.out.value
    Image.new('RGB', (30, 20), 'red').save(tmp_path/'x.png')
    def give(raw): o.controls['upload'].value = (dict(name='x', type='image/png', size=len(raw), content=memoryview(raw), last_modified=pd.Timestamp(0)),)
    give((tmp_path/'x.png').read_bytes())
    assert 'yours' in o.out.value and o.out.value != first
    give(b'\x89PNG\r\n\x1a\n')
    assert 'cannot be used' in o.out.value
    o.controls['row'].value = 2
    assert 'yours' not in o.out.value and 'cannot be used' not in o.out.value

def test_a_widget_leaves_a_static_page_where_nothing_can_react(seen, monkeypatch):
    b = FeatureBrowser(seen)
    for o in ('JPY_SESSION_NAME', 'VSCODE_PID', 'COLAB_RELEASE_TAG'): monkeypatch.delenv(o, raising=False)
    assert set(b._repr_mimebundle_()) == {'text/html', 'text/plain'}
    monkeypatch.setenv('JPY_SESSION_NAME', 'x.ipynb')
    both = b._repr_mimebundle_()
    assert 'application/vnd.jupyter.widget-view+json' in both and both['text/html'].count('<img') > 3

def test_trade_off_of_a_run_has_its_two_models_at_the_ends(tiny):
    record, t = load_run(tiny[1]).results, trade_off([tiny[1]], (0., 1.))
    assert t.id.tolist() == pytest.approx([100*record[o]['test']['value'] for o in ('before', 'after')], abs=1e-4)

# --- what is committed

RESULTS = ROOT/'nbs'/'results'

def test_committed_counts_are_of_the_committed_runs():
    "Accuracy in features.csv and tradeoff.csv is that of the run records, but for two pictures a split at most, whose answers turn with the order of sums."
    runs = {(o.config.method, o.config.lam, o.config.seed): o.of('end')[-1] for stage in ('main', 'lam') for o in map(load_run, (p.parent for p in sorted((RESULTS/stage).rglob('config.json'))))}
    counts, lam = pd.read_csv(RESULTS/'features.csv'), dict(ft=1., l2=3.)
    checked = 0
    for o in counts[counts.method != 'wise-ft'].itertuples():
        assert o.accuracy == pytest.approx(runs[o.method, lam.get(o.method, 1.), o.seed]['after'][o.split]['value'], abs=2.01/o.pictures), o
        checked += 1
    assert checked == 3*3*counts.split.nunique() and sorted(counts.seed.unique()) == [0, 1, 2]
    for o in pd.read_csv(RESULTS/'tradeoff.csv').query('alpha == 1').itertuples():
        after = runs[o.method, o.lam, o.seed]['after']
        assert o.id == pytest.approx(100*after['line']['value'], abs=201/after['line']['n'])
        assert o.far == pytest.approx(100*np.mean([v['value'] for v in after.values() if v['kind'] == 'far']), abs=np.mean([201/v['n'] for v in after.values() if v['kind'] == 'far']))
