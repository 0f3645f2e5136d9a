"Counted costs: they follow from shapes, sizes and what is assumed."
from dataclasses import replace

import pytest

from sae_ft.methods import METHODS
from sae_ft.paper_map import GRIDS
from sae_ft.paper_scale import EIGHT, H100, PICTURES, cost_table, counted, gigabytes, hours, work_of

def test_sizes_are_those_of_the_suites():
    "By hand, from the papers: seven sets of ImageNet's classes and ten transfer sets; two of WILDS each."
    shifts, transfer = 50_000 + 10_000 + 30_000 + 7_500 + 50_889 + 18_574, 86_749
    assert set(PICTURES) == set(GRIDS) and PICTURES == dict(
        imagenet=(1_281_167, shifts + transfer), iwildcam=(129_809, 8_154 + 42_791), fmow=(76_863, 33_435))

@pytest.mark.parametrize('method', METHODS)
def test_every_method_is_counted(method):
    o = work_of(method, 'fmow', 'b32')
    assert bool(o.tuning) == bool(o.steps) == bool(METHODS[method].stages)
    assert o.besides > 0 and 0 < hours(o, EIGHT) < hours(o, H100)

def test_what_costs_more():
    plain, priced = work_of('ft', 'fmow', 'b32'), work_of('sae-ft', 'fmow', 'b32')
    both_towers, twice = work_of('flyp', 'fmow', 'b32'), work_of('lp-ft', 'fmow', 'b32')
    assert plain.tuning < priced.tuning < both_towers.tuning and twice.steps == 2*plain.steps
    sizes = [gigabytes(o, 'b32', H100) for o in (plain, priced, both_towers)]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3
    with_sae, without = (work_of('zero-shot', 'fmow', 'b32', trains_sae=o).besides for o in (True, False))
    assert with_sae > without
    assert counted('ViT-B-32').kept < counted('ViT-B-16').kept

def test_half_the_share_is_twice_the_hours():
    o = work_of('ft', 'fmow', 'b32')
    slow = replace(H100, tuning=H100.tuning/2, forward=H100.forward/2)
    assert hours(o, slow) == pytest.approx(2*hours(o, H100))

def test_a_measured_pace_as_assumed_changes_nothing():
    ft = work_of('ft', 'fmow', 'b32')
    pace = H100.peak*H100.tuning*ft.pictures/ft.tuning
    a, b = cost_table('b32', ('ft', 'sae-ft'), 1), cost_table('b32', ('ft', 'sae-ft'), 1, pace)
    assert b.loc['fmow', 'hours, one H100'] == pytest.approx(a.loc['fmow', 'hours, one H100'])
