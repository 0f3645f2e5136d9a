"The map of class means: moves with known answers in any number of dimensions, and an arrow for each."
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.decomposition import PCA

from sae_ft.drift_map import Plane, apart, class_means, class_moves, plot_moves

SPLITS = dict(line='id', solid='near', emoji='far')

def embedded(seed=0, n=60, d=8, classes=5):
    "Embeddings and labels of three splits, each with a spread of its own."
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(classes).repeat_interleave(n//classes)
    centres = 4*torch.randn(classes, d, generator=g)
    z = {k: (1 + i)*centres[y] + torch.randn(n, d, generator=g) for i, k in enumerate(SPLITS)}
    return z, dict.fromkeys(SPLITS, y)

def spread(table): return table[['moved', 'own']].to_numpy()

def test_the_plane_is_that_of_principal_components():
    points = torch.randn(50, 7, generator=torch.Generator().manual_seed(1))*torch.arange(1, 8)
    plane, pca = Plane(points), PCA(2).fit(points.numpy())
    assert np.allclose(plane.at(points).abs(), np.abs(pca.transform(points.numpy())), atol=1e-3)
    assert plane.shown == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-4)
    assert torch.allclose(Plane(points.flip(0)).axes, plane.axes, atol=1e-4)  # no sign is left to chance

@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-3, 3), min_size=8, max_size=8))
def test_a_translation_moves_all_arrows_alike(by):
    z, y = embedded()
    by = torch.tensor(by)
    table, plane = class_moves(z, {k: o + by for k, o in z.items()}, y)
    arrow = plane.axes @ by
    assert np.allclose(table[['x', 'y']].to_numpy() - table[['x0', 'y0']].to_numpy(), arrow, atol=1e-3)
    assert np.allclose(table.moved, by.norm(), atol=1e-3) and np.allclose(table.own, 0, atol=1e-3)

@pytest.mark.parametrize('angle', [0., .5, np.pi/2, np.pi])
def test_a_rotation_in_the_plane_turns_every_place_by_its_angle(angle):
    z, y = embedded()
    _, plane = class_moves(z, z, y)
    (c, s), (a, b) = (np.cos(angle), np.sin(angle)), plane.axes
    def turned(o):
        x = o - plane.origin
        in_plane = x @ plane.axes.T
        new = torch.stack([c*in_plane[:, 0] - s*in_plane[:, 1], s*in_plane[:, 0] + c*in_plane[:, 1]], 1)
        return o + (new - in_plane) @ torch.stack([a, b])
    table, _ = class_moves(z, {k: turned(o) for k, o in z.items()}, y)
    first, last = (table[f'x{o}'] + 1j*table[f'y{o}'] for o in ('0', ''))
    assert np.allclose(last, first*np.exp(1j*angle), atol=1e-3)
    assert np.allclose(table.moved, 2*np.sin(angle/2)*np.abs(first), atol=1e-3)

def test_a_rotation_of_everything_leaves_lengths_and_turns_no_plane():
    "Of all directions: the map before is the same, and no mean comes nearer to the origin."
    z, y = embedded()
    q = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2)))[0]
    still, plane = class_moves(z, z, y)
    table, _ = class_moves(z, {k: (o - plane.origin) @ q + plane.origin for k, o in z.items()}, y)
    assert np.allclose(table[['x0', 'y0']], still[['x0', 'y0']], atol=1e-3)
    arrows = np.hypot(table.x - table.x0, table.y - table.y0)
    assert (arrows <= table.moved + 1e-3).all() and (table.moved > 1).all()  # a shadow is never longer

def test_splits_with_other_classes_and_few_pictures():
    "Each split has its own classes; a class with too few pictures, or an unread one, has no mean."
    z, y = embedded()
    y = dict(y, emoji=torch.where(y['emoji'] == 4, -1 - torch.arange(60), y['emoji']))
    y['solid'] = y['solid'].clone()
    y['solid'][y['solid'] == 0] = 1
    y['solid'][0] = 0
    table, _ = class_moves(z, z, y)
    of = {k: o.label.tolist() for k, o in table.groupby('split')}
    assert of == dict(line=[0, 1, 2, 3, 4], solid=[1, 2, 3, 4], emoji=[0, 1, 2, 3])
    assert table[table.split == 'solid'].pictures.tolist() == [23, 12, 12, 12]
    assert spread(table).max() == 0
    with pytest.raises(ValueError, match='no class has 99 pictures in a split'): class_moves(z, z, y, 99)

def test_a_mean_needs_pictures():
    z, y = embedded()
    assert torch.allclose(class_means(z['line'], y['line'], [3])[0], z['line'][y['line'] == 3].mean(0))
    with pytest.raises(ValueError, match='class 9 has no picture'): class_means(z['line'], y['line'], [3, 9])

def test_chosen_classes_move_most_and_lie_apart():
    rows = [(s, c, x, 0., m) for s in ('line', 'emoji') for c, (x, m) in
            enumerate([(0., 9.), (.1, 8.), (5., 7.), (10., 1.)])]
    table = pd.DataFrame(rows, columns=['split', 'label', 'x0', 'y0', 'moved'])
    assert apart(table, 'emoji') == [0, 2, 3]      # 1 lies on 0
    assert apart(table, 'emoji', 2) == [0, 2]
    assert apart(table[(table.split == 'line') | (table.label != 0)], 'emoji') == [1, 2, 3]

def test_the_figure_has_an_arrow_a_class_and_split():
    z, y = embedded()
    moves = {t: class_moves(z, {k: o + by for k, o in z.items()}, y)[0] for t, by in dict(a=1., b=0.).items()}
    fig = plot_moves(moves, SPLITS, ['$x$', *'bcde'], [0, 3])
    for ax, (title, table) in zip(fig.axes, moves.items()):
        arrows = [o for o in ax.texts if not o.get_text()]
        rows = table[table.label.isin([0, 3])]
        ends = {(o.xyann[0], o.xy[0]) for o in arrows}
        assert ax.get_title() == title and ends == set(zip(rows.x0, rows.x)) and len(arrows) == 6
        assert [o.get_text() for o in ax.texts if o.get_text()] == ['$x$', 'd']
    markers = {o.get_marker() for o in fig.axes[0].lines if o.get_label()[0] != '_'}
    assert markers == {'o', 's', '^'}
    fig.canvas.draw()
