"The declarations of the paper's suites."
import pytest

from sae_ft.sources import METRIC_NAMES, SPLIT_KINDS
from sae_ft.sources_paper import PAPER_SUITES, is_paper_suite, paper_suite

SPLITS = [(name, o) for name, suite in PAPER_SUITES.items() for o in suite.splits]

@pytest.mark.parametrize('suite,split', SPLITS, ids=[f'{k}-{o.name}' for k, o in SPLITS])
def test_a_declaration_is_whole(suite, split):
    assert split.kind in ('train', 'val', *SPLIT_KINDS)
    assert split.metric in METRIC_NAMES if split.kind not in ('train', 'val') else split.metric == ''
    assert split.at and split.classes > 1 and split.pictures > split.classes and split.source and split.get

def test_names_are_unique_and_train_comes_first():
    for suite in PAPER_SUITES.values():
        names = [o.name for o in suite.splits]
        assert len(set(names)) == len(names)
        assert ('train' in names) == (suite.splits[0].kind == 'train')
        assert all(o.count('{}') == 1 for o in suite.templates)

def test_published_facts():
    of = {(k, o.name): (o.classes, o.pictures) for k, o in SPLITS}
    assert of['imagenet', 'train'] == (1000, 1281167) and of['imagenet', 'objectnet'][0] == 113
    assert of['imagenet', 'imagenet-r'] == (200, 30000) and of['imagenet', 'imagenet-a'] == (200, 7500)
    metrics = {o.name: o.metric for o in PAPER_SUITES['iwildcam'].splits}
    assert metrics['id'] == metrics['ood'] == 'macro-F1 (WILDS)'

def test_some_splits_are_chosen_by_name():
    assert is_paper_suite('imagenet') and is_paper_suite('transfer:dtd') and not is_paper_suite('./imagenet')
    assert [o.name for o in paper_suite('fmow: ood').splits] == ['train', 'val', 'ood']
    with pytest.raises(ValueError, match='known are cifar10'): paper_suite('transfer:dtt')
    with pytest.raises(ValueError, match='known are imagenet'): paper_suite('imagenett')
