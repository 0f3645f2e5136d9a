"""All notebooks as pages: `docs.py [folder]` writes what is committed to _docs/ or the folder; none is run.

Pages need no network and no script: formulas become MathML, pictures lie inside, links between notebooks lead
from page to page. A notebook in a folder of nbs/ becomes a page in a folder of that name. The start page is
the index with the ways through it on top; api.html lists what modules export, search.html finds sections."""
import html, os, re, shutil, sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from current import DIRECTIVE, ROOT
from docs_api import api
from docs_search import form, sections, write_search

NBS = ROOT/'nbs'
PARTS = {'': 'The method', 'plumbing': 'Plumbing'}  # folder of nbs/ -> heading of its pages, in reading order
MAP = re.compile(r'^\| \[[^\]]*\]\(([\w/-]+)\.ipynb\)', re.MULTILINE)
CODE = r'```.*?```|`[^`\n]*`'  # is left alone
MATH = re.compile(CODE + r'|\$\$(.+?)\$\$|(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?![\w$])', re.DOTALL)
STYLES = re.compile(r'<style\b.*?</style>', re.DOTALL)
UNUSED = re.compile(r'--jp-icon-[\w-]+:\s*url\([^)]*\);?|/\*.*?\*/', re.DOTALL)  # icons of buttons
RULE = re.compile(r'([^{}<>]+)\{[^{}]*\}')  # of a style sheet: selectors, and what holds for them
NO_ECHO = re.compile(r'^#\|\s*echo:\s*false', re.MULTILINE)
NEEDLESS = re.compile(r'<script\b.*?</script>|<link\b[^>]*>', re.DOTALL | re.IGNORECASE)
BAR = ('font: 14px system-ui, sans-serif; padding: .6em 1em; '
       'border-bottom: 1px solid #ccc; display: flex; flex-wrap: wrap; gap: .4em 2em')
DOOR = re.compile(r'to \*(\w+)\*,(.*?)(?=; to \*|\.\s)', re.DOTALL)  # a way through, in the index
PAGES = re.compile(r'\]\(([\w/-]+)\.ipynb\)')
FIXED = {'11_paper_map': "the paper's map", 'api': 'API by module'}  # on every page
LINKS = '<style>nav a { color: #0b57a4; }</style>'
DOORS = ('font: 14px/1.5 system-ui, sans-serif; padding: .6em 1em 0; '
         'display: flex; flex-wrap: wrap; gap: 0 2em')
LISTS = 'font: 14px/1.6 system-ui, sans-serif; padding: 1em; border-top: 1px solid #ccc; margin-top: 2em'

def formulas(text: str, made: list) -> str:
    """Markdown with a word in place of each formula; its MathML is added to `made`.

    (Markdown's own parser takes inline HTML apart.)"""
    def one(m):
        if (latex := m[1] or m[2]) is None: return m[0]
        made.append(convert(latex.strip(), display='block' if m[1] else 'inline'))
        return f'formula{len(made) - 1}here'
    return MATH.sub(one, text)

# --- notebooks and their order; a notebook's name is its path in nbs/, without its ending

def read(folder: Path) -> dict:
    "Name -> notebook."
    paths = [p for part in PARTS for p in sorted((folder/part).glob('*.ipynb'))]
    return {p.relative_to(folder).with_suffix('').as_posix(): nbformat.read(p, 4) for p in paths}

def part_of(name: str) -> str: return name.rpartition('/')[0]

def order(notebooks: dict) -> list[str]:
    "Names in reading order: index, then each part as the map in the index has it, then the part's others."
    source = '\n'.join(c.source for c in notebooks['index'].cells)
    listed = [m for m in dict.fromkeys(MAP.findall(source)) if m in notebooks]
    names = dict.fromkeys(['index', *listed, *sorted(notebooks)])
    return sorted(names, key=lambda o: list(PARTS).index(part_of(o)))  # the order within a part stays

def title(nb) -> str:
    found = re.match(r'#\s+(.+)', nb.cells[0].source) if nb.cells else None
    return found[1] if found else 'untitled'

# --- styles

def slim_styles(page: str) -> str:
    "The page without rules for what it does not have: JupyterLab's style sheet is for all of JupyterLab."
    classes = set(' '.join(re.findall(r'\bclass="([^"]*)"', STYLES.sub('', page))).split())
    def applies(selector): return set(re.findall(r'\.([A-Za-z_][\w-]*)', selector)) <= classes
    def kept(rule): return rule[0] if any(map(applies, rule[1].split(','))) else ''
    return STYLES.sub(lambda m: RULE.sub(kept, UNUSED.sub('', m[0])), page)

# --- links

def page_link(to: str, name: str) -> str:
    "Address of the page `to` on the page `name`."
    return os.path.relpath(f'{to}.html', part_of(name) or '.').replace(os.sep, '/')

def copied(source: Path, to: Path) -> Path:
    "A copy of a file of the project below `to`; of a folder, a page with the names of its files."
    copy = to/'files'/source.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copyfile(source, copy)
        return copy
    copy.mkdir(exist_ok=True)
    files = [o.relative_to(source) for o in sorted(source.rglob('*')) if o.is_file()]
    names = ''.join(f'<li>{html.escape(str(o))}</li>' for o in files)
    heading = html.escape(source.name)
    page = f'<!doctype html><meta charset="utf-8"><title>{heading}</title><h1>{heading}</h1><ul>{names}</ul>'
    (copy/'index.html').write_text(page, encoding='utf-8')
    return copy/'index.html'

def links(page: str, to: Path, name: str = 'index') -> str:
    "Point the links of the page `name` at pages, or at copies of the files that are linked to."
    here = to/part_of(name)
    def point(m):
        target, _, anchor = html.unescape(m[2]).partition('#')
        if re.match(r'\w+:|//', target) or not target: return m[0]
        source = (NBS/part_of(name)/unquote(target)).resolve()
        if source.suffix == '.ipynb' and source.is_relative_to(NBS):
            target = page_link(source.relative_to(NBS).with_suffix('').as_posix(), name)
        elif source.is_relative_to(ROOT) and source.exists():
            target = os.path.relpath(copied(source, to), here).replace(os.sep, '/')
        else: return m[0]
        return f'{m[1]}"{html.escape(target + (f"#{anchor}" if anchor else ""), quote=True)}"'
    return re.sub(r'(<a\b[^>]*?\bhref=)"([^"]*)"', point, page)

def navigation(name: str, names: list[str], titles: dict[str, str]) -> str:
    "Links to the page before, the index and the page after."
    i = names.index(name) if name in names else None  # one that is made of all pages has none beside it
    before, after = ([], []) if i is None else (names[max(i - 1, 0):i], names[i + 1:i + 2])
    near = [(f'← {titles[o]}', o) for o in before] + [('all pages', 'index')]
    near += [(t, o) for o, t in FIXED.items() if o in names or o == 'api']
    near += [(f'{titles[o]} →', o) for o in after]
    found = ''.join(f'<a href="{page_link(o, name)}">{html.escape(t)}</a>' for t, o in near)
    return f'{LINKS}<nav style="{BAR}">{found}{form(name) if name != "search" else ""}</nav>'

def doors(nb, titles: dict[str, str]) -> str:
    "The ways through that the index names ('to *learn*, ...'), a box each."
    source, boxes = '\n'.join(c.source for c in nb.cells), []
    for way, text in DOOR.findall(source):
        found = [o for o in PAGES.findall(text) if o in titles]
        items = ''.join(f'<li><a href="{o}.html">{html.escape(titles[o])}</a></li>' for o in found)
        boxes.append(f'<section style="flex: 1 1 15em"><b>{way.capitalize()}</b><ol>{items}</ol></section>')
    return f'<nav aria-label="ways through" style="{DOORS}">{"".join(boxes)}</nav>' if boxes else ''

def contents(names: list[str], titles: dict[str, str]) -> str:
    "All pages in reading order, a list a part; for the index."
    lists = []
    for part, heading in PARTS.items():
        items = [f'<li><a href="{o}.html">{html.escape(titles[o])}</a></li>'
                 for o in names if part_of(o) == part and o != 'index']
        if items: lists.append(f'<h2>{heading}</h2><ol>{"".join(items)}</ol>')
    return f'<nav style="{LISTS}">{"".join(lists)}</nav>'

# --- pages

def prepare(nb, made: list):
    "Without directives, hidden and empty cells, code not to be echoed, stderr; see `formulas`."
    def shown(c):
        if c.cell_type == 'raw' or 'hide' in DIRECTIVE.findall(c.source): return False
        return bool(DIRECTIVE.sub('', c.source).strip())
    nb.cells = [c for c in nb.cells if shown(c)]
    for c in nb.cells:
        if c.cell_type == 'markdown': c.source = formulas(c.source, made)
        else:
            if NO_ECHO.search(c.source): c.metadata['transient'] = dict(remove_source=True)
            c.source = DIRECTIVE.sub('', c.source).strip()
            c.outputs = [o for o in c.outputs if o.get('name') != 'stderr']
    nb.metadata['language_info'] = dict(name='python', pygments_lexer='ipython3')
    return nb

def page_of(name: str, nb, names: list[str], titles: dict[str, str], to: Path, folder: Path, exporter) -> str:
    "A notebook as a page."
    made, top = [], doors(nb, titles) if name == 'index' else ''
    about = dict(name=html.escape(titles[name]), path=str(folder/part_of(name)))
    page, _ = exporter.from_notebook_node(prepare(nb, made), resources=dict(metadata=about))
    page = slim_styles(NEEDLESS.sub('', page))
    page = links(page, to, name)
    page = re.sub(r'formula(\d+)here', lambda m: made[int(m[1])], page)
    bar = navigation(name, names, titles) + top
    page = re.sub(r'(<body\b[^>]*>)', lambda m: m[1] + bar, page, count=1)
    if name == 'index': page = page.replace('</body>', contents(names, titles) + '</body>')
    return page

def build(to: Path = ROOT/'_docs', folder: Path = NBS) -> list[Path]:
    "Write a page for every notebook, which are returned, one of all modules and one to search."
    to, folder = Path(to), Path(folder)
    shutil.rmtree(to, ignore_errors=True)
    notebooks = read(folder)
    titles, names = {k: title(nb) for k, nb in notebooks.items()}, order(notebooks)
    exporter = HTMLExporter(embed_images=True, exclude_input_prompt=True, exclude_output_prompt=True,
                            mathjax_url='', require_js_url='', mermaid_js_url='', jquery_url='')
    found = []
    for name in names:
        page = page_of(name, notebooks[name], names, titles, to, folder, exporter)
        found += sections(page, name, titles[name])
        path = to/f'{name}.html'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding='utf-8')
    page = api(names, navigation('api', names, titles))
    (to/'api.html').write_text(page, encoding='utf-8')
    write_search(to, found + sections(page, 'api', FIXED['api']), navigation('search', names, titles))
    return [to/f'{o}.html' for o in names]

if __name__ == '__main__':
    pages = build(*map(Path, sys.argv[1:2]))
    print(f'{len(pages)} pages, {sum(p.stat().st_size for p in pages)/1e6:.1f} MB: open {pages[0]}')
