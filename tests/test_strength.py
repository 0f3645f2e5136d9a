"lam auto: few strengths are tried, killed or not, the rule chooses, and the run folder tells it."
import json
from dataclasses import replace

import pytest

from sae_ft import experiment
from sae_ft.experiment import Replay, run
from sae_ft.plumbing.files import read_json
from sae_ft.settings import Config
from sae_ft.strength import chosen_strength, said_of, settle, strengths_tried
from sae_ft.sweep import sweep
from sae_ft.tasks_run import TaskConfig
from tiny_runs import TINY, one_line

class Cut(BaseException): pass

@pytest.mark.parametrize('curve, best', [
    (lambda lam: .9, 81.), (lambda lam: .9 - .02*(lam > 2), 1.), (lambda lam: .9 - .02*(lam > .2), .111),
    (lambda lam: .5 + .1*(lam < .001), 1.), (lambda lam: .5 + .1*(lam == 3), 3.)])
def test_the_strength_that_is_chosen(curve, best):
    assert chosen_strength(strengths_tried(curve, 1.)) == best

def test_the_real_thing(tmp_path, monkeypatch, capsys):
    small = {**TINY, 'limit': 40, 'sae_epochs': 2}
    cfg = Config(**small, lam='auto', out_dir=str(tmp_path/'mine'))
    tune, left = experiment.Experiment.tune, [3]
    def dying(self):
        left[0] -= 1
        if left[0] == 0: raise Cut
        return tune(self)
    monkeypatch.setattr(experiment.Experiment, 'tune', dying)
    with pytest.raises(Cut): run(cfg, progress=False)         # killed in its third strength
    assert not (tmp_path/'mine').exists()
    finished = {o.parent.name: o.read_bytes() for o in tmp_path.rglob('model.safetensors')}
    assert set(finished) == {'lam0', 'lam1'}
    done = run(cfg)
    record = read_json(tmp_path/'mine'/'strength.json')
    assert done.folder == tmp_path/'mine' and done.config.lam == record['chosen']
    assert said_of(record) in capsys.readouterr().out
    for name, weights in finished.items():                    # what was finished was not made again
        where = tmp_path/'mine' if name == f"lam{record['chosen']:g}" else tmp_path/'mine-tried'/name
        assert (where/'model.safetensors').read_bytes() == weights
    again = experiment.experiment(cfg, progress=False)        # the same command shows it
    assert isinstance(again, Replay) and again.cfg.lam == record['chosen']
    again = dict(small, lam='auto', out_dir=cfg.out_dir)      # in a sweep, too
    assert list(sweep([again], progress=False).state) == ['was done']
    plain = run(replace(cfg, lam=record['chosen'], out_dir=str(tmp_path/'plain')), progress=False)
    assert plain.of('step') == done.of('step') and plain.results['after'] == done.results['after']

def test_what_cannot_be_chosen(tmp_path):
    assert settle(Config(lam='auto', method='ft'), None).lam == Config(method='ft').lam
    with pytest.raises(ValueError, match="lam is 'much'") as error: Config(lam='much').check()
    one_line(error)
    with pytest.raises(ValueError, match='lam'): TaskConfig(lam='auto').check()
    (tmp_path/'strength.json').write_text(json.dumps(dict(chosen='x')))
    damaged = Config(lam='auto', out_dir=str(tmp_path))
    with pytest.raises(ValueError, match='is damaged') as error: settle(damaged, None)
    one_line(error)
    assert Config(lam='auto').name() == 'sae-ft-lamauto-seed0'
