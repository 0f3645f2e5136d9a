"The map and the tables of README: they show what is there, and notice when it changes."
import shutil

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import layout
from layout import ROOT

def package(folder, **files):
    "A folder with sae_ft/, whose modules have these texts; __ in a name is a folder."
    for name, text in files.items():
        path = folder/'sae_ft'/(name.replace('__', '/') + '.py')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
    return folder

def test_imports_are_read_in_every_form(tmp_path):
    root = package(
        tmp_path, a='import os\n', _hidden='from . import a\n', base='from sae_ft import __version__\n',
        top='from .a import x\nfrom . import base\n',
        full='import sae_ft.a\nfrom sae_ft import base\nfrom sae_ft.under.one import y\n',
        inside='def f():\n    from .a import x\n    class C:\n        from .under import one as other\n',
        under__one='from ..a import x\n', under__two='from .one import y\nimport sae_fta.base\n')
    assert layout.imports(root) == {
        'a': set(), 'base': set(), 'top': {'a', 'base'}, 'full': {'a', 'base', 'under.one'},
        'inside': {'a', 'under.one'}, 'under.one': {'a'}, 'under.two': {'under.one'}}

def test_what_another_import_brings_along_is_not_drawn():
    reads = dict(a=set(), b={'a'}, c={'b', 'a'}, d={'c', 'a'}, e={'a'})
    assert layout.needed(reads) == dict(a=set(), b={'a'}, c={'b'}, d={'c'}, e={'a'})

def test_lines_run_from_row_to_row_and_are_shared():
    reads = dict(a=set(), b={'a'}, c={'b'}, d={'c', 'a'})
    level = layout.levels(reads, dict(a='00', b='00', c='01', d='02'))
    assert level == dict(a=0, b=1, c=2, d=3)
    wires = layout.wires_of(dict(reads, c={'a', 'b'}), level)
    assert set(wires) == {('b', 'a'), (('a', 1), 'a'), ('c', ('a', 1)), ('c', 'b'), (('a', 2), ('a', 1)),
                          ('d', ('a', 2)), ('d', 'c')}

def test_crossings_are_counted_and_avoided():
    wires = [('c', 'b'), ('d', 'a')]
    assert layout.crossings([['a', 'b'], ['c', 'd']], wires) == 1
    width = dict.fromkeys('abcd', 1.)
    rows = layout.in_order([['a', 'b'], ['c', 'd']], wires, width)
    assert layout.crossings(rows, wires) == 0
    x = layout.columns(rows, wires, width)
    assert x['c'] == pytest.approx(x['b']) and x['d'] == pytest.approx(x['a'])
    assert abs(x['a'] - x['b']) >= 1 - 1e-6

def test_the_map_shows_every_module_once_and_nothing_overlaps():
    fig = layout.draw(layout.imports(), layout.notebook_of())
    ax, = fig.axes
    texts = {o.get_text(): o for o in ax.texts}
    plumbing, = [o for o in texts if o.startswith('plumbing: ')]
    for name in layout.modules():
        inside = name.removeprefix('plumbing.')
        assert inside in (plumbing if inside != name else texts)
    assert len(texts) == len(ax.texts)
    renderer = FigureCanvasAgg(fig).get_renderer()
    frame, boxes = fig.bbox, [o.get_window_extent(renderer) for o in ax.texts]
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 for b in boxes)
    assert all(frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes)
    assert not [(i, j) for i, a in enumerate(boxes) for j, b in enumerate(boxes[:i]) if a.overlaps(b)]

def test_map_and_tables_are_current(): assert layout.stale() == []

def test_the_picture_in_the_tree_is_one():
    with Image.open(ROOT/layout.MAP) as im: assert im.format == 'PNG' and im.width <= 900

def test_the_tables_have_every_notebook_once_in_reading_order():
    rows = [row for table in layout.tables() for row in table.splitlines()]
    names = [p.relative_to(ROOT/'nbs').as_posix() for p in layout.notebooks() if p.name != 'index.ipynb']
    main = [o for o in names if '/' not in o]
    assert [row.split('](')[1].split(')')[0] for row in rows] == [*main, *(o for o in names if '/' in o)]
    assert main == sorted(main)
    assert not [row for row in rows if row.endswith('|  |')], 'a notebook without a summary'

def test_what_is_stale_is_found_and_mended(tmp_path):
    unread = shutil.ignore_patterns('results', 'assets', '__pycache__')
    for name in ('nbs', 'sae_ft'): shutil.copytree(ROOT/name, tmp_path/name, ignore=unread)
    layout.write_map(tmp_path)
    layout.write_tables(tmp_path)
    assert layout.stale(tmp_path) == []
    module, notebook = tmp_path/'sae_ft'/'losses.py', tmp_path/'nbs'/'00_clip.ipynb'
    module.write_text(module.read_text(encoding='utf-8') + '\nfrom .clip import Clip\n', encoding='utf-8')
    text = notebook.read_text(encoding='utf-8')
    notebook.write_text(text.replace('> ', '> Changed. ', 1), encoding='utf-8')
    assert [o.split()[0] for o in layout.stale(tmp_path)] == [layout.MAP, 'the']
    layout.write_map(tmp_path)
    layout.write_tables(tmp_path)
    assert layout.stale(tmp_path) == []
    assert 'Changed. ' in (tmp_path/'nbs'/'index.ipynb').read_text(encoding='utf-8')
