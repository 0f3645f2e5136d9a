"Watched pictures: what a run under way answers, in a file that leaves with it and changes nothing."
import json

import torch

from sae_ft.experiment import Experiment
from sae_ft.settings import Config
from sae_ft.watched import read_watched
from tiny_runs import TINY

def test_answers_come_epoch_by_epoch_and_go_with_the_checkpoints(tmp_path):
    cfg = Config(**TINY | dict(epochs=2, limit=40), method='ft', out_dir=str(tmp_path/'a'))
    exp = Experiment(cfg, progress=False)
    exp.zero_shot()
    exp.fit_sae()
    exp.tune()
    file = cfg.folder()/'checkpoint'/'watched.json'
    found = read_watched(file)
    assert [o['epoch'] for o in found['epochs']] == [0, 1, 2]
    assert {o['label'] for o in found['pictures']} <= set(exp.suite.classnames)
    assert all(o['picture'].startswith('data:image/') for o in found['pictures'])
    for answers in (a for o in found['epochs'] for a in o['answers']):
        p = [v for _, v in answers]
        assert p == sorted(p, reverse=True) and 0 < sum(p) <= 1.001
    with torch.no_grad(): z, _ = exp.embed('again', dict(x=exp.watched.data))['x']
    last = [exp.suite.classnames[i] for i in exp.classifier.classify(z).argmax(1).tolist()]
    assert [o[0][0] for o in found['epochs'][-1]['answers']] == last
    exp.measure()
    exp.save()
    assert not file.exists() and 'data:image' not in (cfg.folder()/'config.json').read_text()

def test_whatever_stands_there_is_no_traceback(tmp_path):
    file = tmp_path/'watched.json'
    for text in ('', '{', '[]', '{}', json.dumps(dict(pictures=[], epochs=0)), 'null'):
        file.write_text(text)
        assert read_watched(file) == {}
    assert read_watched(tmp_path) == {}
