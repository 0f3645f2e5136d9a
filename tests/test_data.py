"Labels, class names and the stratified choice; every error is one sentence. Offline, on tiny pictures."
import datasets
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from small_data import cache, fails, folder, load, table  # noqa: F401

from sae_ft import data as D


# --- class names

def test_class_names_given(tmp_path):
    root = folder(tmp_path/'data', {'n01': 9, 'n02': 9})
    (tmp_path/'list.json').write_text('["cat", "dog"]')
    (tmp_path/'map.json').write_text('{"n02": "dog", "n01": "cat"}')
    files = str(tmp_path/'list.json'), tmp_path/'map.json'
    for names in (['cat', 'dog'], {'n02': 'dog', 'n01': 'cat'}, *files):
        assert load(root, classnames=names).classnames == ['cat', 'dog']
    for t in (['a {}.'], 'a {}.'): assert load(root, templates=t).templates == ['a {}.']
    fails('3 class names were given, but the data has 2 classes', root, classnames=['a', 'b', 'c'])
    fails("no entry for 'n02'", root, classnames={'n01': 'cat'})
    fails('does not exist', root, FileNotFoundError, classnames=str(tmp_path/'no.json'))
    (tmp_path/'bad.json').write_text('["cat"')
    fails('not valid JSON', root, classnames=str(tmp_path/'bad.json'))


# --- labels

def test_labels_as_words_and_as_numbers(tmp_path):
    table(['dog', 'cat']*10, feature=datasets.Value('string')).to_parquet(tmp_path/'words.parquet')
    table([0, 1]*10).to_parquet(numbers := tmp_path/'numbers.parquet')
    assert load(tmp_path/'words.parquet').classnames == ['cat', 'dog']
    fails('numbers without names', numbers)
    for names in (['cat', 'dog'], {0: 'cat', '1': 'dog'}):
        assert load(numbers, classnames=names).classnames == ['cat', 'dog']
    fails("no entry for '1'", numbers, classnames={0: 'cat', 2: 'dog'})


@pytest.mark.parametrize('labels,says', [
    ([0, 1, None]*5, r'5 of 15 labels .* row 2 \(None\)'), ([0, 1, -1]*5, r'row 2 \(-1\)'),
    ([0, 1, 7]*5, r'from 0 to 1: first in row 2 \(7\)')])
def test_labels_missing_or_out_of_range(tmp_path, labels, says):
    table(labels).to_parquet(tmp_path/'a.parquet')
    fails(says, tmp_path/'a.parquet', classnames=['cat', 'dog'])


# --- choice

@given(st.lists(st.integers(0, 6), min_size=1, max_size=120), st.integers(0, 150), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_stratified(labels, n, seed):
    rows = D.stratified(labels, n, seed)
    assert len(set(rows)) == len(rows) == min(n, len(labels)) and list(rows) == sorted(rows)
    assert list(rows) == list(D.stratified(labels, n, seed))
    y, share = np.array(labels), min(n, len(labels))/len(labels)
    assert all(abs((y[rows] == c).sum() - share*(y == c).sum()) <= 3.5 for c in set(labels))
