"Exercises of the notebooks: every solution is right, what stands there is open, wrong answers are refused."
import importlib, json, re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import layout
from sae_ft.exercises import EXERCISES, exercise
from sae_ft.checking import OPEN, RIGHT, WRONG

TEACHING = ('00_clip 01_data 02_sae 02_sae_kinds 02_sae_train 03_losses 03_losses_sae 04_drift_measures '
            '04_frozen 04_trainer 05_finetune 06_drift 07_shifts').split()
PATHS = {p.stem: p for p in layout.notebooks()}
CHECK = re.compile(r"^exercise\('([\w-]+)'\)\.check\((\w+)\)$", re.MULTILINE)
FOLDED = re.compile(r'<details><summary>Solution</summary>\n\n```python\n(.*?)```\n\n</details>', re.DOTALL)

def cells_of(name):
    "(kind, text, cell) of every cell."
    found = json.loads(PATHS[name].read_text(encoding='utf-8'))['cells']
    return [(o['cell_type'], ''.join(o['source']), o) for o in found]

def exercises_of(name):
    "{exercise: (the cell, its text, the text below it)} of a notebook."
    cells, found = cells_of(name), {}
    for i, (kind, text, cell) in enumerate(cells):
        for o in CHECK.findall(text) if kind == 'code' else ():
            assert o[0] not in found, f'{o[0]} is there twice'
            found[o[0]] = cell, text, cells[i + 1][1]
    return found

ALL = {(nb, name): rest for nb in TEACHING for name, rest in exercises_of(nb).items()}
EACH = pytest.mark.parametrize('nb, name', list(ALL), ids=[name for _, name in ALL])

def names_there(nb):
    "What a cell of the notebook may use: its module's names, and torch."
    module = layout.module_of(PATHS[nb])
    there = dict(vars(importlib.import_module(f'sae_ft.{module}'))) if module else {}
    return there | dict(torch=torch, F=F, np=np, exercise=exercise)

def said(code, call, there):
    "What the check says after some code."
    exec(code, there)
    return eval(call, there)

@pytest.mark.parametrize('nb', TEACHING)
def test_a_teaching_notebook_asks_and_says_what_it_needs_and_where_to_go(nb):
    cells = cells_of(nb)
    assert cells[1][1].startswith('**You need:** ') and cells[-1][1].startswith('**Now you can:** ')
    assert all(text.count('\n') < 2 and len(text) < 500 for text in (cells[1][1], cells[-1][1]))
    assert {exercise(o).kind for o in exercises_of(nb)} == {'predict', 'change', 'write'}

def test_every_exercise_is_asked_once():
    assert sorted(name for _, name in ALL) == sorted(EXERCISES)

@EACH
def test_solved_it_is_right_and_as_it_stands_it_is_open(nb, name):
    cell, text, below = ALL[nb, name]
    call = CHECK.search(text)[0]
    solution, = FOLDED.findall(below)
    assert said(solution, call, names_there(nb)).state == RIGHT
    open_ = said(text.replace(call, ''), call, names_there(nb))
    assert open_.state == OPEN
    shown = ''.join(''.join(o['data']['text/plain']) for o in cell['outputs'])
    assert shown == repr(open_), 'the notebook holds an answer, or was not run'

@EACH
def test_wrong_answers_are_refused_with_their_words(nb, name):
    row = exercise(name)
    assert row.mistakes
    for text, wrong in row.mistakes.items():
        found = row.check(wrong)
        assert (found.state, found.text) == (WRONG, text)
    other = row.check((lambda *args: 'something else') if row.cases else 'something else')
    assert other.state == WRONG and other.text.startswith(row.hint)

@EACH
def test_code_of_an_exercise_is_short_and_its_lines_too(nb, name):
    _, text, below = ALL[nb, name]
    solution, = FOLDED.findall(below)
    lines = [*text.splitlines(), *solution.splitlines()]
    assert len(lines) <= 20 and max(map(len, lines)) <= 110

def test_what_a_learner_types_stops_nothing():
    def stops(*args): raise KeyError('k')
    def not_yet(*args): raise NotImplementedError
    for row in EXERCISES.values():
        if row.cases:
            assert 'It stops with KeyError' in row.check(stops).text
            assert row.check(not_yet).state == OPEN and 'without brackets' in row.check(3).text
        for o in (object(), [], {}, '', float('nan'), torch.zeros(2, 3, 4), [None], [[1], [1, 2]]):
            assert row.check(o).state != RIGHT and row.check(lambda *args: o).state != RIGHT
