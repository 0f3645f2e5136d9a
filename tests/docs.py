"""All notebooks as pages: `docs.py [folder]` renders what is committed, without running anything, into _docs/ or the folder.

Pages need no network and no script: formulas become MathML, pictures lie inside, links between notebooks lead from page to page."""
import html, re, shutil, sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from current import DIRECTIVE, ROOT

NOTEBOOK = re.compile(r'(?:nbs/)?([\w-]+)\.ipynb')
MATH = re.compile(r'```.*?```|`[^`\n]*`|\$\$(.+?)\$\$|(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?![\w$])', re.DOTALL)  # code is left alone
NEEDLESS = re.compile(r'<script\b.*?</script>|<link\b[^>]*>', re.DOTALL | re.IGNORECASE)
BAR = '<nav style="font: 14px system-ui, sans-serif; padding: .6em 1em; border-bottom: 1px solid #ccc; display: flex; gap: 2em">{}</nav>'

def formulas(text: str, made: list) -> str:
    "Markdown with a word in place of each formula; its MathML is added to `made`. (Markdown's own parser takes inline HTML apart.)"
    def one(m):
        if (latex := m[1] or m[2]) is None: return m[0]
        made.append(convert(latex.strip(), display='block' if m[1] else 'inline'))
        return f'formula{len(made) - 1}here'
    return MATH.sub(one, text)

def order(notebooks) -> list[str]:
    "Names of notebooks as the map in index.ipynb has them, then the others."
    source = '\n'.join(c.source for c in nbformat.read(ROOT/'nbs'/'index.ipynb', 4).cells)
    listed = [m for m in dict.fromkeys(re.findall(r'^\| \[([\w-]+)\]', source, re.MULTILINE)) if m in notebooks]
    return ['index', *listed, *sorted(notebooks - {'index', *listed})]

def links(page: str, to: Path) -> str:
    "Point links at pages, or at copies of the files that are linked to."
    def point(m):
        target, _, anchor = html.unescape(m[2]).partition('#')
        if re.match(r'\w+:|//', target) or not target: return m[0]
        if n := NOTEBOOK.fullmatch(target): target = f'{n[1]}.html'
        elif not (source := (ROOT/'nbs'/unquote(target)).resolve()).is_relative_to(ROOT) or not source.exists(): return m[0]
        else:
            copy = to/'files'/source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_file(): shutil.copyfile(source, copy)
            else:
                copy.mkdir(exist_ok=True)
                names = ''.join(f'<li>{html.escape(str(o.relative_to(source)))}</li>' for o in sorted(source.rglob('*')) if o.is_file())
                copy = copy/'index.html'
                copy.write_text(f'<!doctype html><meta charset="utf-8"><title>{html.escape(source.name)}</title><h1>{html.escape(source.name)}</h1><ul>{names}</ul>', encoding='utf-8')
            target = copy.relative_to(to).as_posix()
        return f'{m[1]}"{html.escape(target + (f"#{anchor}" if anchor else ""), quote=True)}"'
    return re.sub(r'(<a\b[^>]*?\bhref=)"([^"]*)"', point, page)

def navigation(name: str, names: list[str], titles: dict[str, str]) -> str:
    "Links to the page before, the index and the page after."
    i = names.index(name)
    near = [(f'← {titles[o]}', o) for o in names[max(i - 1, 0):i]] + [('all pages', 'index')] + [(f'{titles[o]} →', o) for o in names[i + 1:i + 2]]
    return BAR.format(''.join(f'<a href="{o}.html">{html.escape(t)}</a>' for t, o in near))

def title(nb) -> str:
    found = re.match(r'#\s+(.+)', nb.cells[0].source) if nb.cells else None
    return found[1] if found else 'untitled'

def prepare(nb, made: list):
    "Without directives, hidden and empty cells and what was written to stderr; see `formulas`."
    nb.cells = [c for c in nb.cells if c.cell_type != 'raw' and 'hide' not in DIRECTIVE.findall(c.source) and DIRECTIVE.sub('', c.source).strip()]
    for c in nb.cells:
        if c.cell_type == 'markdown': c.source = formulas(c.source, made)
        else:
            c.source = DIRECTIVE.sub('', c.source).strip()
            c.outputs = [o for o in c.outputs if o.get('name') != 'stderr']
    nb.metadata['language_info'] = dict(name='python', pygments_lexer='ipython3')
    return nb

def build(to: Path = ROOT/'_docs', folder: Path = ROOT/'nbs') -> list[Path]:
    "Write a page for every notebook; returns them."
    to = Path(to)
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    notebooks = {p.stem: nbformat.read(p, 4) for p in sorted(Path(folder).glob('*.ipynb'))}
    titles, names = {k: title(nb) for k, nb in notebooks.items()}, order(set(notebooks))
    exporter = HTMLExporter(embed_images=True, exclude_input_prompt=True, exclude_output_prompt=True, mathjax_url='', require_js_url='', mermaid_js_url='', jquery_url='')
    for name in names:
        made = []
        page, _ = exporter.from_notebook_node(prepare(notebooks[name], made), resources=dict(metadata=dict(name=html.escape(titles[name]), path=str(folder))))
        page = re.sub(r'formula(\d+)here', lambda m: made[int(m[1])], links(NEEDLESS.sub('', page), to))
        (to/f'{name}.html').write_text(re.sub(r'(<body\b[^>]*>)', lambda m: m[1] + navigation(name, names, titles), page, count=1), encoding='utf-8')
    return [to/f'{o}.html' for o in names]

if __name__ == '__main__':
    pages = build(*map(Path, sys.argv[1:2]))
    print(f'{len(pages)} pages, {sum(p.stat().st_size for p in pages)/1e6:.1f} MB: open {pages[0]}')
