"""End to end: notebooks and widgets in JupyterLab, driven by chromium, as a user does it.

Pictures of what was seen are kept in .artefacts/, or where SAE_FT_ARTEFACTS says."""
import shutil, time

import pytest
from PIL import Image

from browser import ARTEFACTS, Notebook, browser, lab
from current import ROOT
from test_e2e_exercises import CHECK, FOLDED, exercises_of

NBS = ROOT/'nbs'

@pytest.fixture(scope='module')
def chromium():
    with browser() as b: yield b

@pytest.fixture(scope='module')
def open_notebook(tmp_path_factory, chromium):
    "Open a notebook of a copy of nbs/."
    folder = tmp_path_factory.mktemp('lab')/'nbs'
    shutil.copytree(NBS, folder, ignore=shutil.ignore_patterns('runs', '.ipynb_checkpoints'))
    with lab(folder) as address:
        page = chromium.new_page(viewport=dict(width=1300, height=1000))
        yield lambda name, **kwargs: Notebook(page, address, folder, name, **kwargs)

def until(check, seconds=20):
    "Wait until `check` gives something true; returns it, or the last thing it gave."
    end = time.time() + seconds
    while not (found := check()) and time.time() < end: time.sleep(.1)
    return found

@pytest.mark.parametrize('part', ['.', 'plumbing'])
def test_every_notebook_opens(open_notebook, part):
    "One after the other in one JupyterLab; each with all its cells, a kernel of its own and no dialog."
    names = [p.relative_to(NBS).with_suffix('').as_posix() for p in sorted((NBS/part).glob('*.ipynb'))]
    failed = {}
    for i, name in enumerate(names):
        try: nb = open_notebook(name, reload=i == 0)
        except Exception as e: failed[name] = f'{type(e).__name__}: {e}'  # the others are still opened
        else:
            cells = nb.page.locator('.jp-Notebook .jp-Cell').count()
            least = 1 if name == 'plumbing/00_promises' else 4  # that one is a page of prose
            opened = nb.dialogs() == 0 and cells == nb.cells >= least
            if not opened: failed[name] = f'{nb.dialogs()} dialogs, {cells} of {nb.cells} cells'
    assert not failed and len(names) > 5

def test_a_notebook_runs_to_its_end(open_notebook):
    nb = open_notebook('03_methods')
    assert nb.run() == []
    nb.shot('03_methods')

def test_exercises_are_solved_by_typing(open_notebook):
    "What is typed is right or not yet, and says so; the solution is folded, and opens at a click."
    nb = open_notebook('03_losses')
    assert nb.run() == []                       # unsolved
    wrong = nb.solve("exercise('losses-longer').check(prediction)", 'prediction = 16')
    assert wrong.startswith('✗ losses-longer: not right yet. That is the price of the raw move')
    for name, (_, text, below) in exercises_of('03_losses').items():
        call, solution = CHECK.search(text)[0], FOLDED.findall(below)[0]
        if 'import' in text: solution = f'from sae_ft.exercises import exercise\n{solution}'
        assert nb.solve(call, solution) == f'✓ {name}: right.'
    folded = nb.page.locator('details').last
    code = folded.locator('pre')
    assert not code.is_visible()
    folded.locator('summary').click()
    assert code.is_visible() and 'prediction = [3, 9]' in code.inner_text()
    nb.shot('03_losses-exercises')

# --- widgets

@pytest.fixture(scope='module')
def widgets(open_notebook):
    nb = open_notebook('10_widgets')
    errors = nb.run(600)
    nb.shot('10_widgets-end')
    assert errors == []
    return nb

DRAWN = 'i.complete && i.naturalWidth > 0'
FOCUSED = """() => {
    const o = document.activeElement, style = getComputedStyle(o);
    const label = o.closest(':has(> .widget-label)')?.querySelector('.widget-label').textContent;
    const ring = o.matches(':focus') && (style.outlineStyle != 'none' || style.boxShadow != 'none'
        || style.borderStyle != 'none');
    return {label, ring};
}"""
THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name}).then(() => null)"
TRUST = """() => {
    const panel = window.jupyterapp.shell.currentWidget;
    for (const cell of panel.content.model.cells) cell.trusted = true;
}"""
CONTRAST = """part => {
    const parse = c => c.match(/[\\d.]+/g).map(Number);
    const light = c => {
        const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v/12.92 : ((v + .055)/1.055)**2.4; });
        return .2126*r + .7152*g + .0722*b;
    };
    const behind = o => {
        for (; o; o = o.parentElement) {
            const c = parse(getComputedStyle(o).backgroundColor);
            if (c.length == 3 || c[3] == 1) return c.slice(0, 3);
        }
        return [255, 255, 255];
    };
    const found = [], walk = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const o = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
        if (!text || !o.checkVisibility() || o.closest('style, option')) continue;
        const [a, b] = [light(parse(getComputedStyle(o).color).slice(0, 3)), light(behind(o))];
        found.push({text, ratio: (Math.max(a, b) + .05)/(Math.min(a, b) + .05)});
    }
    return found;
}"""

class Box:
    "One widget of the notebook, by the label of its first control."
    def __init__(self, nb, label):
        self.nb, self.page = nb, nb.page
        kinds = [f'.jp-OutputArea-output .{o}' for o in ('widget-vbox', 'jupyter-widget-vbox')]
        boxes = nb.page.locator(', '.join(kinds))
        self.box = boxes.filter(has=nb.page.locator('.widget-label', has_text=label)).first
        self.cell = nb.page.locator('.jp-CodeCell', has=self.box)
        self.box.scroll_into_view_if_needed()

    def control(self, label):
        labels = self.box.locator('.widget-label')
        known = labels.get_by_text(label, exact=True).or_(self.box.locator('.widget-label', has_text=label))
        return known.first.locator('xpath=..')

    def below(self): return self.cell.locator('.jp-RenderedHTMLCommon.jp-OutputArea-output').last  # the page
    def html(self): return self.below().inner_html()

    def pictures(self):  # [[address, whether it is drawn], ...]
        images = self.below().locator('img')
        return images.evaluate_all(f'o => o.map(i => [i.src, {DRAWN}])')

    def changes(self, act, name):
        "Do something, and see that the pictures become others; they are all drawn."
        before = self.pictures()
        act()
        assert until(lambda: self.pictures() != before), f'{name}: the pictures did not change'
        drawn = until(lambda: all(drawn for _, drawn in self.pictures()))
        assert drawn and self.pictures(), f'{name}: a picture is not drawn'
        self.box.scroll_into_view_if_needed()
        self.nb.shot(name)
        return self

    def slide(self, label, key='ArrowRight', times=1):
        handle = self.control(label).locator('.noUi-handle').first
        handle.focus()
        for _ in range(times): self.page.keyboard.press(key)

def test_a_saved_notebook_shows_its_controls_and_says_what_to_run(open_notebook):
    """As it lies in the repository, opened and not run: by one who does not trust it, and by one who does.

    (This comes before the tests that run it.)"""
    nb = open_notebook('10_widgets')
    assert nb.page.locator('.jp-OutputArea-output', has_text='Run All Cells').count() >= 3
    assert not nb.page.locator('.widget-vbox, .jupyter-widget-vbox').count()
    nb.page.evaluate(TRUST)
    assert until(lambda: nb.page.locator('.sae-ft-waiting').count() == 3)
    box = Box(nb, 'name or number')
    waiting = box.box.locator('.sae-ft-waiting')
    assert waiting.is_visible() and 'Run All Cells' in waiting.inner_text()
    assert all(box.control(o).is_visible() for o in ('split', 'most', 'name or number', 'rank'))
    assert all(drawn for _, drawn in box.pictures()) and box.pictures()
    nb.shot('10_widgets-saved')

def test_the_feature_browser_reacts(widgets):
    box = Box(widgets, 'name or number')
    query = box.control('name or number').locator('input')
    box.changes(lambda: query.fill('bell'), 'browser-typed')
    assert 'bell' in box.html() and 'rank 1 of' in box.html()
    box.changes(lambda: query.fill(''), 'browser-cleared')
    box.changes(lambda: box.slide('rank', times=3), 'browser-slider')
    assert until(lambda: 'rank 4 of' in box.html())
    box.changes(lambda: box.slide('most'), 'browser-removed')
    assert until(lambda: box.control('most').locator('.widget-readout').inner_text() == 'removed')
    query.fill('<img src=x>')
    assert until(lambda: 'no feature is called' in box.html()) and not box.pictures()
    query.fill('')
    assert until(box.pictures)

def test_the_inspector_reacts_and_takes_a_picture(widgets, tmp_path):
    box = Box(widgets, 'picture')
    box.changes(lambda: box.slide('picture', times=2), 'inspector-slider')
    Image.new('RGB', (40, 30), 'orange').save(tmp_path/'mine.png')
    def upload(name):
        with box.page.expect_file_chooser() as chooser: box.box.get_by_text('upload a picture').click()
        chooser.value.set_files(tmp_path/name)
    box.changes(lambda: upload('mine.png'), 'inspector-upload')
    assert until(lambda: 'yours' in box.html())
    (tmp_path/'bad.png').write_bytes(b'no picture')
    upload('bad.png')
    assert until(lambda: 'cannot be used' in box.html())
    box.changes(lambda: box.slide('picture'), 'inspector-back')

def test_the_trade_off_reacts(widgets):
    box = Box(widgets, 'alpha')
    box.changes(lambda: box.slide('alpha', 'ArrowLeft'), 'tradeoff-alpha')
    assert until(lambda: any(f'alpha {o}' in box.html() for o in ('0.75', '0.5', '0.25')))
    box.changes(lambda: box.slide('method', 'ArrowLeft'), 'tradeoff-l2')
    assert until(lambda: 'l2, lam' in box.html())

def test_every_control_is_reached_by_keyboard(widgets):
    "From the first on by Tab, each in its turn, with a ring of focus; an arrow moves the one that has it."
    box = Box(widgets, 'name or number')
    box.changes(lambda: box.slide('split'), 'browser-split')
    reached = [box.page.evaluate(FOCUSED)]
    while reached[-1]['label'] != 'rank' and len(reached) < 12:
        box.page.keyboard.press('Tab')
        reached.append(box.page.evaluate(FOCUSED))
    labels = dict.fromkeys(o['label'] for o in reached)
    assert list(labels) == ['split', 'most', 'name or number', 'rank'] and all(o['ring'] for o in reached)
    box.changes(lambda: box.page.keyboard.press('ArrowRight'), 'browser-keyboard')

# --- the page for a colleague

def test_texts_are_read_in_the_dark_theme(widgets):
    "Contrast of every text of the pages and controls with what lies behind it: 4.5 at least (WCAG AA)."
    for theme in ('JupyterLab Dark', 'JupyterLab Light'):
        widgets.page.evaluate(THEME, theme)
        widgets.page.wait_for_timeout(1500)
        for label in ('name or number', 'picture', 'alpha'):
            box = Box(widgets, label)
            widgets.shot(f'{theme.split()[1].lower()}-{label.split()[0]}')
            for part in (box.box, box.below()):
                found = part.evaluate(CONTRAST)
                assert found and min(o['ratio'] for o in found) >= 4.5, (theme, label, min_of(found))

def min_of(found): return min(found, key=lambda o: o['ratio'])

def test_the_report_opens_offline(chromium, report_page):
    context = chromium.new_context(offline=True, viewport=dict(width=1100, height=1000))
    page, asked, said = context.new_page(), [], []
    page.on('request', lambda r: asked.append(r.url))
    page.on('console', lambda m: said.append(m.text))
    page.on('dialog', lambda d: said.append(d.message))
    page.goto(report_page.as_uri())
    page.wait_for_timeout(500)
    assert [o for o in asked if not o.startswith('data:')] == [report_page.as_uri()] and not said
    drawn = page.locator('img').evaluate_all(f'o => o.map(i => {DRAWN})')
    assert len(drawn) > 20 and all(drawn)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS/'report.png', full_page=True)
    context.close()
