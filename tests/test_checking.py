"Exercises that check themselves: what counts as the same, what is said, and that the check always returns."
import numpy as np
import pytest
import torch

from sae_ft.checking import OPEN, RIGHT, WRONG, Exercise, Feedback, same_answer

@pytest.mark.parametrize('a, b', [
    (3, 3.), (2, torch.tensor(2)), ([1, 2], torch.tensor([1., 2.])), (np.ones((2, 2)), torch.ones(2, 2)),
    (True, 1), (' Far', 'far'), (['a', 'B'], ('A', 'b')), (float('nan'), float('nan')),
    (torch.ones(2, requires_grad=True), [1, 1]), ([[1], [2, 3]], [[1], [2, 3]])])
def test_alike_whatever_it_is_made_of(a, b): assert same_answer(a, b) and same_answer(b, a)

@pytest.mark.parametrize('a, b', [
    (3, [3]), (1, 1.01), ('3', 3), (['a'], ['a', 'b']), (None, 0), (torch.ones(2), torch.ones(2, 1)),
    (float('nan'), 0), ([1, 'a'], [1, 'b']), ({}, 0), ([[1], [2, 3]], [[1], [2, 4]])])
def test_not_alike(a, b): assert not same_answer(a, b) and not same_answer(b, a)

def test_tolerance_is_of_size_and_of_small_numbers():
    assert same_answer(1000, 1000.05) and not same_answer(1000, 1000.5) and same_answer(1000, 1000.5, 1e-3)

double = Exercise('double', lambda x: 2*x, 'Twice.', {'Half.': lambda x: x/2},
                  ((torch.ones(3),), (torch.ones(2),)))

def test_a_function_is_given_copies():
    def in_place(x): return x.mul_(2)
    assert double.check(in_place).state == RIGHT and double.check(in_place).state == RIGHT

@pytest.mark.parametrize('answer, text', [
    (lambda x: x/2, 'Half.'),
    (lambda x: x, 'Twice. In call 1 of 2 it is off by 1 at most.'),
    (lambda x: 2*x if len(x) == 3 else 3*x, 'Twice. In call 2 of 2 it is off by 1 at most.'),
    (lambda x: (2*x)[None], 'Twice. Its shape is (1, 3), and should be (3,).'),
    (lambda x: 'two', 'Twice. It gives str, not numbers.'),
    (lambda x, y: x, 'It stops with TypeError: '),
    (torch.ones(3), 'Give the function itself: its name, without brackets.')])
def test_what_is_said_of_a_wrong_function(answer, text):
    found = double.check(answer)
    assert found.state == WRONG and found.text.startswith(text)

@pytest.mark.parametrize('answer', [..., None, lambda x: ..., lambda x: None])
def test_open(answer): assert double.check(answer) == Feedback('double', OPEN)

def test_a_function_that_was_not_changed_is_open():
    mistakes = {'Less.': lambda x: x - 1}
    row = Exercise('row', lambda x: x + 1, 'One more.', mistakes, ((1,),), start=lambda x: x)
    states = [row.check(o).state for o in (lambda x: x, lambda x: x - 1, lambda x: x + 1)]
    assert states == [OPEN, WRONG, RIGHT] and row.kind == 'change' and double.kind == 'write'

def test_words_to_choose_from_are_named():
    word = Exercise('word', 'up', 'Look.', {'No.': 'down'})
    assert word.kind == 'predict' and word.check('left').text == 'Look. The answers are down, up.'
    assert [repr(word.check(o)) for o in (..., 'down', 'Up')] == [
        '… word: not solved yet.', '✗ word: not right yet. No.', '✓ word: right.']
