"Names of features: by the words nearest to them, against what their pictures are called."
import re

import numpy as np
import pandas as pd
import pytest
import torch

from sae_ft.concepts import agreement, called, name_features, top_words, vocabulary
from sae_ft.sae_kinds import SAES

def test_names_that_are_right_agree_fully_and_shuffled_ones_do_not():
    "100 features, each of one class, named rightly."
    n = 100
    s, y = (o.repeat_interleave(10, 0) for o in (torch.eye(n), torch.arange(n)))
    words = [f'w{i}' for i in range(n)]
    share = top_words(s, called(words, y, words))
    t = pd.DataFrame(dict(name=words, confidence=np.linspace(0, 1, n)))
    score = agreement(t, words, share)
    whole = score.loc['all']
    assert whole.agreement == whole.ceiling == 1 and whole.random == pytest.approx(1/n, abs=.01)
    assert whole.features == n and score.features[:-1].tolist() == [25]*4
    wrong = t.assign(name=np.roll(words, 1))
    assert agreement(wrong, words, share).loc['all', 'agreement'] == 0

def test_an_order_of_words_that_no_hash_changes():
    captions = ['one two', 'two one', 'three']*5
    assert vocabulary(captions, 5) == ['one', 'two', 'three']

def test_features_that_are_on_in_few_pictures_have_no_agreement():
    share = top_words(torch.eye(5), torch.ones(5, 3))
    score = agreement(pd.DataFrame(dict(name=['a']*5, confidence=[.1]*5)), list('abc'), share)
    assert score.features.max() == 0

def test_one_word_is_no_choice_of_names():
    sae = SAES['topk'](4, 2, 2)
    with pytest.raises(ValueError, match=re.escape('two words or more')) as e:
        name_features(sae, torch.zeros(1, 4), ['a'])
    assert '\n' not in str(e.value)
