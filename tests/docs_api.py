"""What each module exports, on one page: the heads of functions and classes as they are written, with the
comments of their parameters. Modules are read, not imported."""
import ast, html, re
from pathlib import Path

from current import ROOT

SOURCE = re.compile(r'File to edit: (?:\.\./)+nbs/([\w/]+)\.ipynb')
STYLE = '''<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 62em; margin: 1em auto; padding: 0 1em; }
pre { background: #f5f5f5; padding: .6em; overflow-x: auto; font-size: 13px; }
h2 { border-top: 1px solid #ccc; padding-top: .6em; }
h3 { font: 600 15px ui-monospace, monospace; margin: 1em 0 .2em; }
</style>'''

def head(node, lines: list[str]) -> str:
    "A definition without its body: decorators, signature, docstring; of a class, those of its methods too."
    first = min([node.lineno, *(o.lineno for o in node.decorator_list)])
    docstring = ast.get_docstring(node) is not None
    inside = node.body[1:] if docstring else node.body
    last = node.body[0].end_lineno if docstring else inside[0].lineno - 1
    if isinstance(node, ast.ClassDef) and not docstring: last = node.lineno
    text = '\n'.join(lines[first - 1:max(last, node.lineno)])
    if not isinstance(node, ast.ClassDef): return text
    methods = [o for o in inside if isinstance(o, ast.FunctionDef) and ast.get_docstring(o)]
    fields = [lines[o.lineno - 1] for o in inside if isinstance(o, ast.AnnAssign)]
    return '\n'.join([text, *fields, *(head(o, lines) for o in methods)])

def heads(path: Path) -> tuple[str, str, dict[str, str]]:
    "A module's notebook, its docstring, and what it exports: name -> text."
    text = path.read_text(encoding='utf-8')
    tree, lines = ast.parse(text), text.splitlines()
    found, exported = {}, []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): found[node.name] = head(node, lines)
        if not isinstance(node, ast.Assign): continue
        names = [o.id for target in node.targets for o in ast.walk(target) if isinstance(o, ast.Name)]
        if names == ['__all__']: exported = ast.literal_eval(node.value)
        found.update({o: '\n'.join(lines[node.lineno - 1:node.end_lineno]) for o in names})
    notebook = SOURCE.search(text)
    doc = ast.get_docstring(tree) or ''
    return notebook[1] if notebook else '', doc, {o: found[o] for o in exported if o in found}

def modules() -> dict[str, Path]:
    "Name -> file, of all modules that come from notebooks."
    package = ROOT/'sae_ft'
    paths = [*sorted(package.glob('*.py')), *sorted((package/'plumbing').glob('*.py'))]
    return {'.'.join(o.relative_to(ROOT).with_suffix('').parts): o for o in paths if o.stem[0] != '_'}

def api(names: list[str], bar: str) -> str:
    "The page: modules in the order of their notebooks, those that `names` has."
    read = {o: heads(path) for o, path in modules().items()}
    order = sorted((o for o in read if read[o][0] in names), key=lambda o: names.index(read[o][0]))
    parts, listed = [], []
    for o in order:
        notebook, doc, found = read[o]
        listed.append(f'<li><a href="#{o}">{o}</a></li>')
        parts.append(f'<h2 id="{o}">{o}</h2><p>{html.escape(doc)} '
                     f'Taught in <a href="{notebook}.html">{notebook}</a>.</p>')
        for name, text in found.items():
            parts.append(f'<h3 id="{o}.{name}">{name}</h3><pre>{html.escape(text)}</pre>')
    contents = f'<ul style="columns: 14em">{"".join(listed)}</ul>'
    main = f'<main><h1>API by module</h1>{contents}{"".join(parts)}</main>'
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8"><title>API by module</title>'
            f'{STYLE}</head><body>{bar}{main}</body></html>')
