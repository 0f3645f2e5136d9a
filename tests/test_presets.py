"Presets: what is not given comes from them."
import json
import re
from pathlib import Path

import pytest

from sae_ft.methods import METHODS
from sae_ft.presets import PRESETS, ByMethod, preset_of
from sae_ft.settings import RULES, Config

def test_a_preset_fills_in_what_is_not_given_and_nothing_else():
    for name, preset in PRESETS.items():
        cfg = Config(preset=name).check()
        said = {k: preset.value(k, cfg.method) for k in preset.settings}
        assert {k: getattr(cfg, k) for k in said} == said
        other = Config(preset=name, lr=.5, method='l2')
        assert other.lr == .5 and other.method == 'l2'
    assert Config().lr == 3e-4 and Config(model='ViT-B-32').lr == 1e-5 == Config(preset='paper-b16').lr
    assert [Config(method=m).lam for m in ('ldifs', 'sae-ft', 'ft')] == [500, 1, 1]
    assert Config(method='ldifs', model='ViT-B-32').lam == 1 and preset_of('local-dir:x') == 'open-clip'

def test_a_preset_has_settings_that_there_are_and_a_source():
    every = set().union(*(o.settings for o in PRESETS.values()))
    for name, o in PRESETS.items():
        assert set(o.settings) == every <= set(RULES) and o.name == name
        others = [v.others for v in o.settings.values() if isinstance(v, ByMethod)]
        assert {m for v in others for m in v} <= set(METHODS) and o.settings['method'] in METHODS
        published = name not in ('iconclip', 'open-clip')
        assert len(o.source) > 20 and (re.search('arXiv|official', o.source) or not published)

def test_the_table_of_05_finetune_says_the_values_of_iconclips_preset():
    file = Path(__file__).parent.parent/'nbs'/'05_finetune.ipynb'
    cells = json.loads(file.read_text(encoding='utf-8'))['cells']
    text, said = ''.join(''.join(o['source']) for o in cells), {}
    for name, brackets in re.findall(r'^\| `(\w+)` \|.*[;|] preset[^(|]*\(([^)]*)\)', text, re.M):
        number = re.search(r'\$?(?:([\d.]+) \\cdot )?10\^\{(-?\d+)\}|[\d.]+', brackets)
        if number: said[name] = float(number[1] or 1)*10**int(number[2]) if number[2] else float(number[0])
    usual = {k: PRESETS['iconclip'].value(k, 'sae-ft') for k in said}
    assert len(said) >= 12 and said == pytest.approx(usual)
