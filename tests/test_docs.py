"The notebooks as pages: complete, linked, readable offline."
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import nbformat, pytest

from current import ROOT
from docs import build, formulas, links

NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb'))

class Page(HTMLParser):
    "What a page links to, loads, and can be linked to at."
    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids, self.tags = [], [], set(), set()
        self.feed(path.read_text(encoding='utf-8'))
    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.tags.add(tag)
        if a.get('id'): self.ids.add(a['id'])
        if tag == 'a' and a.get('href'): self.links.append(a['href'])
        self.loads += [v for k, v in attrs if k in ('src', 'srcset', 'poster', 'data') and v] + ([a['href']] if tag == 'link' else [])

@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('docs')/'pages'
    return {p: Page(p) for p in build(folder)}

def test_every_notebook_has_a_page(made):
    assert sorted(p.stem for p in made) == [p.stem for p in NOTEBOOKS] and next(iter(made)).name == 'index.html'

def test_every_link_leads_somewhere(made):
    wrong, seen = [], 0
    for path, page in made.items():
        for href in page.links:
            if re.match(r'(https?|mailto):', href): continue
            target, _, anchor = unquote(href).partition('#')
            to, seen = (path.parent/target).resolve() if target else path, seen + 1
            if not to.is_file() and not (to/'index.html').is_file(): wrong.append((path.name, href))
            elif anchor and to in made and anchor not in made[to].ids: wrong.append((path.name, href))
    assert not wrong and seen > 100

def test_pages_load_nothing(made):
    for path, page in made.items():
        assert not [o for o in page.loads if not o.startswith('data:')], path.name
        assert 'script' not in page.tags and not re.search(r'@import|url\((?!["\']?data:)', path.read_text(encoding='utf-8')), path.name

def test_formulas_are_set_and_code_is_left_alone(made):
    losses = next(p for p in made if p.stem == '03_losses').read_text(encoding='utf-8')
    assert '<msub><mi>z</mi><mn>0</mn></msub>' in losses and not re.search(r'formula\d+here', losses)
    assert formulas('`$a$` and $5 or $6 and $x_i$', found := []) == '`$a$` and $5 or $6 and formula0here' and len(found) == 1
    assert formulas('```\n$a$\n```\n$$\\frac12$$', found) == '```\n$a$\n```\nformula1here' and 'mfrac' in found[1]
    for path in made:
        text = re.sub(r'<(pre|code|style)\b.*?</\1>', '', path.read_text(encoding='utf-8'), flags=re.DOTALL)
        assert not re.search(r'\\(frac|sum|lVert|mathcal|bar|hat|alpha|lambda)\b', re.sub(r'<[^>]*>', '', text)), path.name

def test_pictures_are_inside_and_the_whole_is_small(made):
    assert sum(p.stat().st_size for p in made) < 15e6
    assert any(o.startswith('data:image/png') for page in made.values() for o in page.loads)

def test_names_are_escaped(tmp_path):
    v4 = nbformat.v4
    (tmp_path/'nbs').mkdir()
    cells = [v4.new_markdown_cell('# <script>alert(1)</script>\n> x'), v4.new_code_cell('#| hide\nhidden_away = 1'), v4.new_code_cell('#| export\na = "<script>"', outputs=[v4.new_output('stream', name='stderr', text='100%|###|')])]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path/'nbs'/'a.ipynb')
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell('# I\n> x\n\n[a](a.ipynb#b)')]), tmp_path/'nbs'/'index.ipynb')
    pages = build(tmp_path/'out', tmp_path/'nbs')
    text = {p.stem: p.read_text(encoding='utf-8') for p in pages}
    for o in text.values(): assert '<script' not in o
    assert 'hidden_away' not in text['a'] and '100%|' not in text['a'] and '#| export' not in text['a']
    assert 'href="a.html#b"' in text['index'] and '&lt;script&gt;' in text['index']

def test_links_to_files_get_copies_and_others_stay(tmp_path):
    page = '<a href="../LICENSE">l</a><a href="https://x.org/a.ipynb">x</a><a href="../../etc/passwd">p</a>'
    found = links(page, tmp_path)
    assert 'href="files/LICENSE"' in found and (tmp_path/'files'/'LICENSE').is_file()
    assert 'https://x.org/a.ipynb' in found and not list(tmp_path.rglob('passwd'))
