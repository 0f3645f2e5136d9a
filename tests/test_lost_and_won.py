"What tuning lost and won: every picture counted once, chance by drawings, flows and pictures that fit."
from types import SimpleNamespace

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sae_ft.lost_and_won import (OUTCOMES, changed_pictures, classes_of, features_moved, flows, outcomes,
                                 pictures_with_features, plot_flow, won_and_lost)
from sae_ft.suites import classnames_of
from studies import assert_harmless

def answers(seed, n=60, classes=4, splits=('a', 'b')):
    "Made-up answers on the same pictures; those before are the same for all seeds."
    def of(split, at):
        fixed, rng = np.random.default_rng(at), np.random.default_rng([seed, at])
        label = fixed.integers(0, classes, n)
        zero_shot = np.where(fixed.random(n) < .5, label, fixed.integers(0, classes, n))
        tuned = np.where(rng.random(n) < .6, label, rng.integers(0, classes, n))
        return dict(split=split, label=label, drawing=np.arange(n)//2, zero_shot=zero_shot, tuned=tuned)
    return pd.concat([pd.DataFrame(of(o, i)) for i, o in enumerate(splits)])

def suite_of(table, **own):
    "Pictures for answers: one colour a picture, its number."
    def split(k):
        labels = table[table.split == k].label.tolist()
        images = [Image.new('RGB', (4, 4), (i, 0, 0)) for i in range(len(labels))]
        data = datasets.Dataset.from_dict(dict(image=images, label=labels))
        data = data.cast_column('image', datasets.Image())
        return SimpleNamespace(data=data, classnames=own.get(k))
    splits = {k: split(k) for k in table.split.unique()}
    return SimpleNamespace(classnames=['zero', 'one', 'two', 'three'], splits=splits)

@pytest.fixture(scope='module')
def table(): return answers(0)

def test_every_picture_has_one_outcome_and_accuracies_follow(table):
    found = outcomes(table, table)
    counts = won_and_lost(found)
    assert counts[list(OUTCOMES)].sum(axis=1).tolist() == counts.pictures.tolist() == [60, 60]
    before, after = ((table.label == table[o]).groupby(table.split).sum() for o in ('zero_shot', 'tuned'))
    assert (counts.kept + counts.lost).tolist() == before.tolist()
    assert (counts.kept + counts.won).tolist() == after.tolist()
    assert counts.net.tolist() == (after - before).tolist()
    assert found.place.tolist() == 2*list(range(60))

def test_two_runs_in_any_order_of_splits_and_turned_around(table):
    other = answers(1)
    turned = pd.concat([other[other.split == 'b'], other[other.split == 'a']])
    ab = outcomes(table, turned, ('tuned', 'tuned'))
    assert ab.equals(outcomes(table, other, ('tuned', 'tuned')))
    ba = outcomes(other, table, ('tuned', 'tuned'))
    assert ((ab.outcome == 'won') == (ba.outcome == 'lost')).all()

@pytest.mark.parametrize('change, says', [
    (lambda o: o[:-1], 'judged on other pictures'),
    (lambda o: o.assign(label=o.label.to_numpy()[::-1]), 'judged on other pictures'),
    (lambda o: o.drop(columns='tuned'), "no answers 'tuned': there are zero_shot.")])
def test_other_answers_are_refused(table, change, says):
    with pytest.raises(ValueError, match=says): outcomes(table, change(table))

def test_chance_counts_a_drawing_once():
    "Ten pictures won: of ten drawings, or of one, which is a single toss."
    ten = pd.DataFrame(dict(split='s', label=[0]*10, drawing=range(10), zero_shot=1, tuned=0))
    assert won_and_lost(outcomes(ten, ten)).chance.item() == pytest.approx(2/2**10)
    one = ten.assign(drawing=0)
    assert won_and_lost(outcomes(one, one)).chance.item() == 1
    none = ten.assign(tuned=1)
    assert won_and_lost(outcomes(none, none)).chance.item() == 1
    even = ten.assign(zero_shot=[1, 0]*5, tuned=[0, 1]*5, drawing=np.arange(10)//2)  # each won and lost
    assert won_and_lost(outcomes(even, even)).chance.item() == 1

def test_classes_add_up_and_say_what_is_answered_now(table):
    found, suite = outcomes(table, table), suite_of(table)
    by_class = classes_of(found, suite, ['a', 'b'])
    assert by_class.net.is_monotonic_increasing and set(by_class.index) <= set(suite.classnames)
    assert by_class.net.sum() == won_and_lost(found).net.sum()
    for name, row in by_class.iterrows():
        lost = found[(found.outcome == 'lost') & (found.label == suite.classnames.index(name))]
        assert (row.now == '') == (len(lost) == 0)
        if len(lost):
            top = lost.after.value_counts()
            assert row.now == f'{suite.classnames[top.index[0]]} ({top.iloc[0]})'

def test_splits_of_other_classes_are_looked_at_alone(table):
    suite, found = suite_of(table, b=['red', 'green', 'blue', 'grey']), outcomes(table, table)
    assert classnames_of(suite, 'a')[0] == 'zero' and classnames_of(suite, 'b')[0] == 'red'
    with pytest.raises(ValueError, match="'a' and 'b' have different classes"):
        classes_of(found, suite, ['a', 'b'])
    assert set(classes_of(found, suite, ['b']).index) <= {'red', 'green', 'blue', 'grey'}

@pytest.mark.parametrize('outcome, side', [('lost', 0), ('won', 1)])
def test_flows_are_whole_classes(table, outcome, side):
    found = outcomes(table, table)
    rows = found[found.outcome == outcome]
    assert flows(found, outcome, 4).sum() == len(rows)
    two = flows(found, outcome, 2)
    labels = two.index.get_level_values(side).unique()
    assert len(labels) == 2 and two.sum() == rows.label.value_counts()[:2].sum()
    assert all(a != b for a, b in two.index)

def test_the_figure_has_a_band_a_flow_of_its_thickness(table):
    found = outcomes(table, table)
    fig = plot_flow(found, ['zero', 'one', 'two', '$x$'], most=4, sides=('then', 'now'))
    for ax, outcome in zip(fig.axes, ('lost', 'won')):
        flow = flows(found, outcome, 4)
        bands = [o.get_path().vertices for o in ax.patches if len(o.get_path().vertices) == 9]
        left = sorted(round(v[7, 1] - v[0, 1], 6) for v in bands)
        right = sorted(round(v[4, 1] - v[3, 1], 6) for v in bands)
        assert left == right == sorted(flow.tolist())
        assert {'then', 'now', '$x$'} <= {o.get_text() for o in ax.texts}
    fig.canvas.draw()   # a name with a dollar is no formula

def test_nothing_lost_is_drawn_too(table):
    same = outcomes(table, table, ('tuned', 'tuned'))
    fig = plot_flow(same, list('abcd'))
    assert [ax.get_title() for ax in fig.axes] == ['lost: 0 of 0 pictures', 'won: 0 of 0 pictures']

def test_the_gallery_shows_the_right_pictures_once_a_drawing(table):
    found, suite = outcomes(table, table), suite_of(table)
    page = changed_pictures(found, suite, 'a', n=99).data
    for outcome in ('lost', 'won'):
        rows = found[(found.split == 'a') & (found.outcome == outcome)]
        assert f'{outcome}: {len(rows)}' in page
    changed = found[(found.split == 'a') & found.outcome.isin(['lost', 'won'])]
    assert page.count('<img') == changed.groupby('outcome').drawing.nunique().sum()
    assert changed_pictures(found, suite, 'a', ('lost',), n=2).data.count('<img') == 2
    assert changed_pictures(found, suite, 'a').data == changed_pictures(found, suite, 'a').data

def test_pictures_of_another_suite_are_refused(table):
    found = outcomes(table, table)
    for other in (table[:-1], table.assign(label=(table.label + 1) % 4)):
        with pytest.raises(ValueError, match="the answers on 'b' are of other pictures"):
            changed_pictures(found, suite_of(other), 'b')

# --- with the features that moved

def test_the_features_that_moved_most_in_a_picture(study):
    split = next(iter(study.before))
    for place in range(3):
        change = (study.after[split].s[place] - study.before[split].s[place]).abs()
        moved = features_moved(study, split, place, 5)
        steps = (moved.after - moved.before).abs()
        assert steps.is_monotonic_decreasing and (steps > 0).all()
        assert len(moved) == min(5, (change > 0).sum())
        assert np.allclose(steps, change[moved.index.tolist()])
        assert change.max() == pytest.approx(steps.iloc[0])
        assert moved.name.tolist() == study.names.name[moved.index].tolist()

def test_nothing_moved_where_nothing_was_tuned(still_study):
    split = next(iter(still_study.before))
    assert len(features_moved(still_study, split, 0)) == 0
    found = outcomes(still_study.run.predictions, still_study.run.predictions)
    assert '<img' not in pictures_with_features(found, still_study, split).data

def test_the_gallery_with_features_shows_them_and_names_are_texts(study):
    found, split = outcomes(study.run.predictions, study.run.predictions), next(iter(study.before))
    pages = {o: pictures_with_features(found, study, split, o, n=3, features=2).data for o in OUTCOMES}
    for outcome, page in pages.items():
        shown = found[(found.split == split) & (found.outcome == outcome)].drawing.nunique()
        assert_harmless(page)
        assert page.count('<img') == min(3, shown)
        assert page.count('▲') + page.count('▼') == 2*min(3, shown)
    assert any('&lt;script&gt;alert' in o for o in pages.values())
    with pytest.raises(ValueError, match='unknown split'): pictures_with_features(found, study, 'nowhere')
    with pytest.raises(ValueError, match='are of other pictures'):
        pictures_with_features(found[1:], study, split)
