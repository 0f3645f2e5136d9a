"Style: every method has one, and no two are alike."
import html

import matplotlib.pyplot as plt

from sae_ft.methods import METHODS
from sae_ft.plumbing.style import KIND_COLOURS, METHOD_COLOURS, as_markdown, colour_of, figure

def test_every_method_has_a_style_of_its_own():
    assert set(METHODS) <= set(METHOD_COLOURS)
    assert len({tuple(o.values()) for o in METHOD_COLOURS.values()}) == len(METHOD_COLOURS)
    assert all(colour_of(o) == METHOD_COLOURS[o]['c'] for o in METHODS)

def test_kinds_of_splits_differ(): assert len(set(KIND_COLOURS.values())) == len(KIND_COLOURS)

def test_a_figure_is_closed_and_can_be_drawn_on():
    before = plt.get_fignums()
    fig, axs = figure(1, 2, (4, 2), squeeze=False)
    axs[0, 1].plot([0, 1])
    fig.canvas.draw()
    assert plt.get_fignums() == before and axs.shape == (1, 2) and tuple(fig.get_size_inches()) == (4, 2)

def test_a_name_begins_nothing_in_markdown():
    evil = '<script>x</script> | ![a](http://x.org) `b` **c**\n# d'
    text = as_markdown(evil)
    assert not set('<>|[]!`*\n') & set(text) and html.unescape(text) == evil.replace('\n', ' ')
