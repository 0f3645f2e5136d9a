"End to end: nbs/one_page.ipynb, the method without the package. nbdev_test runs it; here it is read."
import ast, sys
from statistics import mean, stdev

import nbformat
import pytest

from current import ROOT
from sae_ft.evaluation import means
from sae_ft.runs import read_runs
from sae_ft.settings import Config

PAGE = nbformat.read(ROOT/'nbs'/'one_page.ipynb', as_version=4)
SHOWN = [c for c in PAGE.cells if c.cell_type == 'code' and '#| hide' not in c.source]
CODE = '\n'.join(c.source for c in SHOWN)

def lines_of(code):
    "Lines that are neither empty nor a comment."
    return [o for o in code.splitlines() if o.strip() and not o.strip().startswith('#')]

def imported(code):
    "Packages, without those of Python itself."
    nodes = [o for o in ast.walk(ast.parse(code)) if isinstance(o, (ast.Import, ast.ImportFrom))]
    names = {a.name for o in nodes if isinstance(o, ast.Import) for a in o.names}
    names |= {o.module for o in nodes if isinstance(o, ast.ImportFrom)}
    return {o.split('.')[0] for o in names} - sys.stdlib_module_names

def test_it_is_one_page_of_torch_and_open_clip():
    assert len(lines_of(CODE)) <= 100 and max(map(len, CODE.splitlines())) <= 110
    assert imported(CODE) == {'torch', 'open_clip', 'datasets'}
    hidden = [c.source for c in PAGE.cells if c.cell_type == 'code' and c not in SHOWN]
    assert not any(map(imported, hidden)) and not [o for o in hidden if 'torch' in o or 'def ' in o]
    assert 'sae_ft' not in CODE.replace('../sae_ft/assets', '')

def test_every_step_of_training_has_its_equation_beside_it():
    loops = [o for o in ast.walk(ast.parse(CODE)) if isinstance(o, ast.For) and isinstance(o.target, ast.Name)
             and o.target.id == 'rows']
    lines = CODE.splitlines()[loops[0].lineno:loops[0].end_lineno]
    assert len(lines) > 10 and [o.strip() for o in lines if '  # ' not in o] == ['adam.zero_grad()']

def constants(code):
    "Names that are set to numbers, one by one or several in a line."
    found = {}
    for o in ast.walk(ast.parse(code)):
        if not isinstance(o, ast.Assign) or len(o.targets) != 1: continue
        names, values = [p.elts if isinstance(p, ast.Tuple) else [p] for p in (o.targets[0], o.value)]
        for name, value in zip(names, values):
            if isinstance(name, ast.Name) and isinstance(value, ast.Constant): found[name.id] = value.value
    return found

def test_its_settings_are_those_of_the_package():
    found, cfg = constants(CODE), Config()
    names = {o: o for o in ('lam', 'mu', 'k', 'epochs', 'sae_epochs')}
    names |= dict(lam_f='lam_feature', rate='lr', size='batch_size')
    assert {o: found[o] for o in names} == {o: getattr(cfg, name) for o, name in names.items()}
    assert cfg.method == 'sae-ft' and cfg.weight_decay == .1 and cfg.warmup == .1 and cfg.clip_grad == 1
    assert cfg.expansion == 4 and cfg.crop == .9  # open_clip's own

def shown_table():
    "kind -> zero-shot, this page, and mean, lowest and highest of the package, as the notebook shows them."
    text = ''.join(o.text for c in SHOWN for o in c.outputs if o.output_type == 'stream')
    rows = [o.split() for o in text.split('highest seed\n')[1].splitlines()]
    return {o[0]: [float(v) for v in o[1:]] for o in rows}

@pytest.mark.parametrize('kind', ['id', 'near', 'far'])
def test_it_reaches_the_numbers_of_the_record(kind):
    runs = read_runs(ROOT/'nbs'/'results'/'main', method='sae-ft', lam=Config().lam)[:5]   # the page's seeds
    recorded = [100*means(o.metrics[-1]['after'])[kind] for o in runs]
    before, page, *package = shown_table()[kind]
    zero_shot = 100*means(runs[0].metrics[-1]['before'])[kind]
    assert before == pytest.approx(zero_shot, abs=.3)  # bf16 turns a few answers
    assert package == pytest.approx([mean(recorded), min(recorded), max(recorded)], abs=.006), 'run it again'
    assert abs(page - mean(recorded)) < max(.5, 4.6*stdev(recorded)*1.2**.5)
