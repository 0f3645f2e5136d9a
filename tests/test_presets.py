"Presets: what is not given comes from them."
import re

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
