"""What the project is made of, and what reads what.

`layout.py` writes the map and the tables of nbs/index.ipynb: the map is drawn from the imports in sae_ft/,
the tables are made from the notebooks' summaries, and a test compares both with what is there."""
import ast, json, re, sys, textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAP = 'nbs/images/map.png'
HEAD = '| notebook | module | what it teaches |\n|---|---|---|\n'
TABLE = re.compile(re.escape(HEAD) + r'((?:\|.*\n?)*)')
EXPORT = re.compile(r'^#\|\s*default_exp\s+(\S+)', re.MULTILINE)

# --- what is there

def notebooks(root: Path = ROOT) -> list[Path]:
    "All notebooks, in reading order: plumbing, the rooms by number, the others."
    found = [p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts]
    return sorted(found, key=lambda p: (p.parent == root/'nbs', p.name))

def modules(root: Path = ROOT) -> dict[str, Path]:
    "name -> file, of every module but the generated index: 'clip', 'plumbing.files'."
    package = root/'sae_ft'
    files = [p for p in sorted(package.rglob('*.py')) if not p.name.startswith('_')]
    return {'.'.join(p.relative_to(package).with_suffix('').parts): p for p in files}

def cells(path: Path, kind: str) -> list[str]:
    "Sources of a notebook's cells of a kind, 'markdown' or 'code'."
    found = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [''.join(c['source']) for c in found if c['cell_type'] == kind]

def module_of(path: Path) -> str | None:
    "Name of the module that a notebook makes, if it makes one."
    found = EXPORT.findall('\n'.join(cells(path, 'code')))
    return found[0] if found else None

def summary(path: Path) -> str:
    "What a notebook says below its title, as one line."
    found = re.match(r'# .*\n+((?:>.*\n?)+)', cells(path, 'markdown')[0])
    lines = found[1].splitlines() if found else []
    return ' '.join(re.sub(r'^>\s*', '', line) for line in lines).replace('|', r'\|')

def notebook_of(root: Path = ROOT) -> dict[str, str]:
    "module -> notebook, as '01_data' or 'plumbing/03_files'."
    paths = {module_of(p): p.relative_to(root/'nbs').with_suffix('').as_posix() for p in notebooks(root)}
    return {name: path for name, path in paths.items() if name}

# --- what reads what

def meant(package: str, name: str, node) -> list[str]:
    "Full names of what an import statement in the module `name` may mean."
    if isinstance(node, ast.Import): return [a.name for a in node.names]
    if not isinstance(node, ast.ImportFrom): return []
    here = [package, *name.split('.')]
    parent = here[:len(here) - node.level] if node.level else []
    base = '.'.join([*parent, *([node.module] if node.module else [])])
    return [base, *(f'{base}.{a.name}' for a in node.names)]

def imports(root: Path = ROOT) -> dict[str, set]:
    "module -> modules of the package that it imports, at its top or inside functions."
    files, package = modules(root), 'sae_ft'
    def read(name):
        nodes = ast.walk(ast.parse(files[name].read_text(encoding='utf-8')))
        found = {o.removeprefix(f'{package}.') for node in nodes for o in meant(package, name, node)
                 if o.startswith(f'{package}.')}
        return (found & set(files)) - {name}
    return {name: read(name) for name in files}

def as_text(reads: dict[str, set]) -> str:
    "A line for each module: what the map was drawn from."
    return '\n'.join(f"{name}: {' '.join(sorted(reads[name]))}".strip() for name in sorted(reads))

# --- the tables

def tables(root: Path = ROOT) -> list[str]:
    "Rows for the rooms, and rows for plumbing, in reading order; index.ipynb itself has none."
    def row(path):
        link, name = path.relative_to(root/'nbs').as_posix(), module_of(path)
        module = f' `sae_ft.{name}` ' if name else ' '
        return f'| [{path.stem}]({link}) |{module}| {summary(path)} |\n'
    rooms = [p for p in notebooks(root) if p.name != 'index.ipynb']
    main = [p for p in rooms if p.parent == root/'nbs']
    return [''.join(map(row, main)), ''.join(row(p) for p in rooms if p not in main)]

def write_tables(root: Path = ROOT):
    "Put them into index.ipynb, which has the heads of both."
    path = root/'nbs'/'index.ipynb'
    nb, rows = json.loads(path.read_text(encoding='utf-8')), iter(tables(root))
    for cell in nb['cells']:
        text = TABLE.sub(lambda m: HEAD + next(rows), ''.join(cell['source']))
        cell['source'] = text.removesuffix('\n').splitlines(keepends=True)
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + '\n', encoding='utf-8')

# --- the map: a row for each number and depth, in it the boxes and the places where lines pass

def needed(reads):
    "Without the imports that go without saying: those of what is imported by another import too."
    def below(name, without=None):
        return set().union(*({o} | below(o) for o in reads[name] if o != without))
    return {name: {o for o in read if o not in below(name, o)} for name, read in reads.items()}

def levels(reads, number):
    "module -> row: sorted by number, and below what it imports of the same number."
    def depth(name): return max((depth(o) + 1 for o in reads[name] if number[o] == number[name]), default=0)
    at = {place: i for i, place in enumerate(sorted({(number[o], depth(o)) for o in reads}))}
    return {name: at[number[name], depth(name)] for name in reads}

def wires_of(reads, level):
    """Lines as pairs of places, the lower one first.

    A place is a module or, where a line passes a row, (module, row).
    All who import a module share the line that leads up to it."""
    wires = set()
    for name, read in reads.items():
        for o in read:
            path = [o, *((o, r) for r in range(level[o] + 1, level[name])), name]
            wires |= set(zip(path[1:], path))
    return sorted(wires, key=str)

def crossings(rows, wires):
    "How often lines cross between rows."
    at = {p: (i, j) for i, row in enumerate(rows) for j, p in enumerate(row)}
    ends = [(at[a][0], at[a][1], at[b][1]) for a, b in wires]
    return sum(i == k and (a - c)*(b - d) < 0 for n, (i, a, b) in enumerate(ends) for k, c, d in ends[:n])

def in_order(rows, wires, width, sweeps=40):
    "The rows, each sorted by where its neighbours are, again and again; as they were when least crossed."
    import numpy as np
    from sklearn.isotonic import isotonic_regression
    x = {p: float(i) for row in rows for i, p in enumerate(row)}
    near = {p: [b if a == p else a for a, b in wires if p in (a, b)] for p in x}
    found = [rows]
    for sweep in range(sweeps):
        rows = [list(row) for row in rows]
        for row in rows[::1 if sweep % 2 else -1]:
            to = {p: np.mean([x[o] for o in near[p]] or [x[p]]) for p in row}
            row.sort(key=lambda p: (to[p], str(p)))
            w = np.array([width[p] for p in row])
            touching = np.cumsum(w) - w/2
            x.update(zip(row, isotonic_regression([to[p] for p in row] - touching) + touching))
        found.append(rows)
    return min(found, key=lambda o: crossings(o, wires))

def columns(rows, wires, width):
    "place -> x, in that order, without overlap, lines as straight as can be (a linear programme)."
    import numpy as np
    from scipy.optimize import linprog
    at = {p: i for i, p in enumerate(p for row in rows for p in row)}
    rules, limits = [], []
    def rule(limit, *terms):
        "sum of weight * variable <= limit"
        rules.append(np.zeros(len(at) + len(wires)))
        for i, weight in terms: rules[-1][i] = weight
        limits.append(limit)
    for i, (a, b) in enumerate(wires, len(at)):   # variable i is at least |x_a - x_b|
        rule(0, (at[a], 1), (at[b], -1), (i, -1))
        rule(0, (at[a], -1), (at[b], 1), (i, -1))
    for row in rows:
        for a, b in zip(row, row[1:]): rule(-(width[a] + width[b])/2, (at[a], 1), (at[b], -1))
    price = [(1, 2, 8)[isinstance(a, tuple) + isinstance(b, tuple)] for a, b in wires]
    x = linprog([0]*len(at) + price, np.array(rules), limits).x
    return {p: x[i] for p, i in at.items()}

def draw(reads: dict[str, set], notebook: dict[str, str]):
    "A figure: a box for each module, a line from each up to what it imports, plumbing as one box below."
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path as Line
    from sae_ft.plumbing.style import COLOURS
    def is_plumbing(name): return name.startswith('plumbing.')
    main = [name for name in reads if not is_plumbing(name)]
    number = {name: notebook[name][:2] for name in main}
    reads_main = {name: reads[name] & set(main) for name in main}
    edges, level = needed(reads_main), levels(reads_main, number)
    wires = wires_of(edges, level)
    rows = [[] for _ in range(max(level.values()) + 1)]
    places = {*level, *(p for wire in wires for p in wire)}
    for p in sorted(places, key=str): rows[level[p] if p in level else p[1]].append(p)
    width = {p: .12*len(p) + .6 if p in level else .3 for row in rows for p in row}
    rows = in_order(rows, wires, width)
    x, y = columns(rows, wires, width), {p: -i for i, row in enumerate(rows) for p in row}

    left = min(x[o] - width[o]/2 for o in level) - .8
    right = max(x[o] + width[o]/2 for o in level) + .3
    wide = .62*(right - left)
    fig, ax = plt.subplots(figsize=(wide, .33*(len(rows) + 3.1)), dpi=min(100, int(890/wide)))
    fig.subplots_adjust(0, 0, 1, 1)
    ax.set(xlim=(left, right), ylim=(-len(rows) - 2.4, .7))
    ax.axis('off')
    half, blue, round_box = .3, '#dce9f5', 'round,pad=0,rounding_size=.15'
    def box(x, y, w, h, text, fill):
        corner = x - w/2, y - h/2
        ax.add_patch(FancyBboxPatch(corner, w, h, fc=fill, ec='k', lw=.8, zorder=3, boxstyle=round_box))
        ax.text(x, y - .03, text, ha='center', va='center', fontsize=9, linespacing=1.5, zorder=4)
    for i, n in enumerate(sorted(set(number.values()))):
        inside = [y[o] for o in level if number[o] == n]
        ax.axhspan(min(inside) - .5, max(inside) + .5, color='#f1f1f1' if i % 2 else 'w', zorder=0)
        ax.text(left + .2, max(inside), n, va='center', fontsize=10, weight='bold', c='#666666')
    imported = [o for o in level if any(o in read for read in edges.values())]
    colour = {o: COLOURS[i % len(COLOURS)] for i, o in enumerate(imported)}
    for a, b in wires:
        foot, top = y[a] + half, y[b] - half
        bend = Line([(x[a], foot), (x[a], (foot + top)/2), (x[b], (foot + top)/2), (x[b], top)], [1, 4, 4, 4])
        c = colour[b if b in level else b[0]]
        ax.add_patch(PathPatch(bend, fc='none', ec=c, lw=1.4, zorder=1))
        if b in level: ax.plot(x[b], top, marker=6, c=c, ms=6, zorder=2)
        else: ax.plot([x[b]]*2, [top, top + 2*half], c=c, lw=1.4, zorder=1)
    for name in level:
        fill = blue if any(map(is_plumbing, reads[name])) else 'w'
        box(x[name], y[name], width[name] - .2, 2*half, name, fill)
    names = [o.removeprefix('plumbing.') for o in sorted(filter(is_plumbing, reads), key=notebook.get)]
    lines = textwrap.wrap(f"plumbing: {', '.join(names)}", int(7*(right - left)))
    text = '\n'.join([*lines, 'read by all blue boxes; reads none of them'])
    high = .6*(len(lines) + 1)
    box((left + right)/2, -len(rows) - .3 - high/2, right - left - .5, high, text, blue)
    plt.close(fig)
    return fig

def drawn_from(root: Path = ROOT) -> str:
    "What the picture in nbs/images was drawn from; it says so itself."
    from PIL import Image
    path = root/MAP
    return Image.open(path).text.get('Description', '') if path.exists() else ''

def write_map(root: Path = ROOT):
    "Draw the map, unless it is drawn from these imports: pixels differ with the version of matplotlib."
    reads = imports(root)
    if drawn_from(root) != as_text(reads):
        draw(reads, notebook_of(root)).savefig(root/MAP, metadata=dict(Description=as_text(reads)))

def stale(root: Path = ROOT) -> list[str]:
    "What is not as the imports and the notebooks have it."
    texts, problems = cells(root/'nbs'/'index.ipynb', 'markdown'), []
    shown = [rows.strip() for text in texts for rows in TABLE.findall(text)]
    if drawn_from(root) != as_text(imports(root)):
        problems.append(f'{MAP} shows other imports than there are')
    if shown != [rows.strip() for rows in tables(root)]:
        problems.append('the tables in nbs/index.ipynb are not those of the notebooks')
    return [f'{o}: run `make map readme`' for o in problems]

if __name__ == '__main__':
    if len(sys.argv) > 1: sys.exit('usage: python tests/layout.py')
    write_map()
    write_tables()
    print(f'{MAP} and the tables of nbs/index.ipynb are current')
