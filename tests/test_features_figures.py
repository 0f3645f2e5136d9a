"What the figures of features draw."
import pytest

from sae_ft.features import strengths
from sae_ft.features_figures import plot_strengths

def test_the_curve_of_strengths_shows_every_kept_feature(study):
    split = next(iter(study.before))
    ratio = strengths(study.table(split))
    drawn = plot_strengths([study], (split,)).axes[0].lines[0].get_xdata()
    assert len(ratio) > 1 and sorted(ratio) == pytest.approx(drawn[1:])
