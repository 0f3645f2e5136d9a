"What speaks for an answer, and which answers turned."
import re

import pytest
import torch

from sae_ft.evidence import blame, evidence, evidence_behind, flipped_answers, show_answers
from sae_ft.features import changed
from studies import assert_harmless

def test_evidence_adds_up_to_logits_exactly(study):
    for split in study.before:
        rows = list(range(8))
        c, other = torch.zeros(8, dtype=torch.long), torch.ones(8, dtype=torch.long)
        for after, side in ((False, study.before), (True, study.after)):
            each, rest = evidence(study, split, rows, c, other, after)
            with torch.no_grad(): logits = study.models[after].classify(side[split].z[rows])
            b = study.models[after].head.bias.detach()
            difference = (logits[:, 0] - b[0]) - (logits[:, 1] - b[1])
            assert torch.allclose(each.sum(1) + rest, difference, atol=1e-3)

def test_evidence_behind_ends_with_the_sum_and_the_rest(study):
    split = next(iter(study.before))
    y = study.labels[split][0].item()
    other = (y + 1) % len(study.suite.classnames)
    t = evidence_behind(study, split, 0, n=study.sae.n, against=other)
    assert t.name[-2:].tolist() == ['all features', 'the rest']
    each, rest = evidence(study, split, [0], torch.tensor([y]), torch.tensor([other]))
    assert t.evidence_after.iloc[:-2].sum() == pytest.approx(t.evidence_after.iloc[-2], rel=1e-4)
    assert t.evidence_after.iloc[-2:].tolist() == pytest.approx([each.sum().item(), rest.item()], rel=1e-4)

def test_turned_answers(study):
    for split in study.before:
        a, b = study.right(split)
        mended, broken = (len(flipped_answers(study, split, o)) for o in ('mended', 'broken'))
        assert mended - broken == b.sum() - a.sum()

def test_a_run_that_changed_nothing_turned_no_answer(still_study):
    assert not flipped_answers(still_study, 'test', 'broken') and blame(still_study, 'test', 'broken').empty
    assert changed(still_study.table('test'))['per_picture_added'] == 0

@pytest.mark.parametrize('call,need', [
    (lambda o: evidence_behind(o, 'test', 99), 'there is no picture 99'),
    (lambda o: flipped_answers(o, 'test', 'lost'), "must be 'broken' or 'mended'")])
def test_bad_input_gets_a_sentence(study, call, need):
    with pytest.raises(ValueError, match=re.escape(need)) as e: call(study)
    assert '\n' not in str(e.value)

def test_html_of_pictures_is_escaped(study):
    assert_harmless(show_answers(study, next(iter(study.before)), [0, 13, 25]).data)
