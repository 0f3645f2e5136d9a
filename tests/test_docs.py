"The notebooks as pages: complete, linked, readable offline."
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import nbformat, pytest

from current import ROOT
from docs import PARTS, build, formulas, links

NBS = ROOT/'nbs'
NOTEBOOKS = [p.relative_to(NBS) for part in PARTS for p in sorted((NBS/part).glob('*.ipynb'))]

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
        self.loads += [v for k, v in attrs if k in ('src', 'srcset', 'poster', 'data') and v]
        if tag == 'link': self.loads.append(a['href'])

@pytest.fixture(scope='module')
def folder(tmp_path_factory): return tmp_path_factory.mktemp('docs')/'pages'

@pytest.fixture(scope='module')
def made(folder): return {p: Page(p) for p in build(folder)}

def test_every_notebook_has_a_page(made, folder):
    assert sorted(p.relative_to(folder).with_suffix('.ipynb') for p in made) == sorted(NOTEBOOKS)
    assert next(iter(made)) == folder/'index.html'
    folders = {p.parent for p in NBS.rglob('*.ipynb') if not {'runs', '.ipynb_checkpoints'} & {*p.parts}}
    assert folders == {NBS/part for part in PARTS}   # no notebook lies elsewhere

def test_the_index_lists_both_parts_in_reading_order(made, folder):
    names = [p.relative_to(folder).as_posix() for p in made]
    text = (folder/'index.html').read_text(encoding='utf-8')
    lists = re.findall(r'<h2>([^<]*)</h2><ol>(.*?)</ol>', text)
    assert [heading for heading, _ in lists] == list(PARTS.values())
    listed = [re.findall(r'href="([^"]*)"', items) for _, items in lists]
    assert listed[0] + listed[1] == names[1:]
    assert not any('/' in o for o in listed[0])
    assert all(o.startswith('plumbing/') for o in listed[1])
    assert listed[1] == sorted(listed[1])
    last, first = (made[folder/o] for o in (listed[0][-1], listed[1][0]))   # of the method, of plumbing
    assert listed[1][0] in last.links
    assert f'../{listed[0][-1]}' in first.links and '../index.html' in first.links

def test_every_link_leads_somewhere(made):
    wrong, seen = [], 0
    for path, page in made.items():
        for href in page.links:
            if re.match(r'(https?|mailto):', href): continue
            target, _, anchor = unquote(href).partition('#')
            to, seen = (path.parent/target).resolve() if target else path, seen + 1
            there = to.is_file() or (to/'index.html').is_file()
            known = not anchor or to not in made or anchor in made[to].ids
            if not (there and known): wrong.append((path.name, href))
    assert not wrong and seen > 100

def test_pages_load_nothing(made):
    for path, page in made.items():
        assert not [o for o in page.loads if not o.startswith('data:')], path.name
        text = path.read_text(encoding='utf-8')
        assert 'script' not in page.tags, path.name
        assert not re.search(r'@import|url\((?!["\']?data:)', text), path.name

def test_formulas_are_set_and_code_is_left_alone(made, folder):
    losses = (folder/'03_losses.html').read_text(encoding='utf-8')
    assert '<msub><mi>z</mi><mn>0</mn></msub>' in losses and not re.search(r'formula\d+here', losses)
    assert formulas('`$a$` and $5 or $6 and $x_i$', found := []) == '`$a$` and $5 or $6 and formula0here'
    assert len(found) == 1
    assert formulas('```\n$a$\n```\n$$\\frac12$$', found) == '```\n$a$\n```\nformula1here'
    assert 'mfrac' in found[1]
    for path in made:
        text = re.sub(r'<(pre|code|style)\b.*?</\1>', '', path.read_text(encoding='utf-8'), flags=re.DOTALL)
        left = re.search(r'\\(frac|sum|lVert|mathcal|bar|hat|alpha|lambda)\b', re.sub(r'<[^>]*>', '', text))
        assert not left, path.name

def test_pictures_are_inside_and_the_whole_is_small(made):
    assert sum(p.stat().st_size for p in made) < .3e6*len(made)  # a page is a quarter of a MB
    assert any(o.startswith('data:image/png') for page in made.values() for o in page.loads)

def test_names_are_escaped_and_links_lead_between_folders(tmp_path):
    v4 = nbformat.v4
    def write(path, *cells):
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(v4.new_notebook(cells=list(cells)), path)
    bar = v4.new_output('stream', name='stderr', text='100%|###|')
    write(tmp_path/'nbs'/'a.ipynb',
          v4.new_markdown_cell('# <script>alert(1)</script>\n> x'),
          v4.new_code_cell('#| hide\nhidden_away = 1'),
          v4.new_code_cell('#| export\na = "<script>"', outputs=[bar]))
    index = '# I\n> x\n\n[a](a.ipynb#b) [p](plumbing/p.ipynb)'
    write(tmp_path/'nbs'/'index.ipynb', v4.new_markdown_cell(index))
    write(tmp_path/'nbs'/'plumbing'/'p.ipynb',
          v4.new_markdown_cell('# P\n> x\n\n[a](../a.ipynb#b) [q](q.ipynb) [l](../../LICENSE)'))
    pages = build(tmp_path/'out', tmp_path/'nbs')
    names = [p.relative_to(tmp_path/'out').as_posix() for p in pages]
    assert names == ['index.html', 'a.html', 'plumbing/p.html']
    text = {p.stem: p.read_text(encoding='utf-8') for p in pages}
    for o in text.values(): assert '<script' not in o
    assert 'hidden_away' not in text['a'] and '100%|' not in text['a'] and '#| export' not in text['a']
    assert 'href="a.html#b"' in text['index'] and '&lt;script&gt;' in text['index']
    assert 'href="plumbing/p.html"' in text['index']
    for href in ('../a.html#b', 'q.html', '../files/LICENSE'): assert f'href="{href}"' in text['p']
    assert (tmp_path/'out'/'files'/'LICENSE').is_file()

def test_links_to_files_get_copies_and_others_stay(tmp_path):
    page = '<a href="../LICENSE">l</a><a href="https://x.org/a.ipynb">x</a><a href="../../etc/passwd">p</a>'
    found = links(page, tmp_path)
    assert 'href="files/LICENSE"' in found and (tmp_path/'files'/'LICENSE').is_file()
    assert 'https://x.org/a.ipynb' in found and not list(tmp_path.rglob('passwd'))
