"Numbers in prose: each stands in an output or in code of its notebook, or in the list of exceptions."
import json, re

import layout
import pytest

CITED = re.compile(r'arXiv [\d.]+|\b[Ss]ections? [\d.]+(,? and [\d.]+)?'
                   r'|et al\.?,? \(?(19|20)\d\d|[A-Z]\w+,? \(?(19|20)\d\d')
TAKEN_OUT = [r'```.*?```', r'`[^`]*`', r'\$\$.*?\$\$', r'\$[^$]*\$', r'\]\([^)]*\)', r'<[^>]*>', r'https?://\S+']
IN_PROSE = re.compile(r'(?<![\w.\-/#^_])[-+−]?\d[\d,]*(?:\.\d+)?(?:\s?%)?(?![\w/^]|\.\d)')
ANYWHERE = re.compile(r'\d[\d,_]*(?:\.\d+)?(?:e-?\d+)?|\.\d+')

PUBLISHED, BY_HAND = 'published, with its source beside it', 'worked out by hand in the sentence'
EXCEPTIONS = {  # notebook -> number -> why no code makes it
    '00_clip': {'0.9': PUBLISHED, '0.5': BY_HAND},
    '01_embeddings': {'1.28': PUBLISHED},
    '01_sources_layouts': {'1,281,167': PUBLISHED},
    '01_sources_maps': dict.fromkeys(['113', '224', '313'], PUBLISHED),
    '02_sae_rows': {'65,536': 'the default, 2**16', '1024': BY_HAND, '128': BY_HAND},
    '03_conceptors': dict.fromkeys(['256', '246'], BY_HAND),
    '03_files': dict.fromkeys(['0.81', '0.91'], 'an example'),
    '03_lora': dict.fromkeys(['4.6', '1.35'], 'tests/bench/lora.py prints them'),
    '03_losses_sae': {'1024': 'the size that the cell below computes'},
    '03_presets': dict.fromkeys(['0.0001', '0.001', '0.003'], 'four runs of one seed, not kept'),
    '03_methods': dict.fromkeys(['81.9', '82.5', '80.8'], 'of 0.1.0; the text says that no record is left'),
    '04_listing': {'1.28': PUBLISHED},
    '06_blocks': {'1.28': PUBLISHED, '512': PUBLISHED, '2.6': BY_HAND},
    '04_verdict': {'2,000': 'pictures of one who tried, of which no record is left'},
    '05_launch': {'304': PUBLISHED, '1.2': BY_HAND},
    '04_drift_measures': dict.fromkeys(['0.40', '0.83', '0.67'], PUBLISHED),
    '07_shifts': {'2.78': "Student's t, any table", '1.96': 'the normal distribution, any table',
                  **dict.fromkeys(['79.2', '86.5', '98.7', '38.1'], PUBLISHED)},
    '11_inside_activations': {'50,000': 'an example of a size'},
    '11_inside_saes': {'49,152': PUBLISHED},
    '11_inside_steering': {'15': PUBLISHED},
    '11_paper_scale': {'128': PUBLISHED},
    'iconclip': {'5.9': 'the size that 00_clip prints', '104': 'megabytes of the archive'},
    'one_page': {'99': 'the level of an interval'},
    'index': {'3.10': 'a version of Python', '0.0003': 'as in 03_presets', '0.00001': 'as in 03_presets'},
}

def text_of(part): return part if isinstance(part, str) else ''.join(part)
def plain(number): return re.sub(r'[,_%−+\s-]', '', number)

def prose_numbers(markdown: str) -> list[str]:
    "Decimals, percentages, whole numbers of three digits or more, outside of code, formulas and citations."
    for pattern in TAKEN_OUT: markdown = re.sub(pattern, ' ', markdown, flags=re.DOTALL)
    found = IN_PROSE.findall(CITED.sub('', markdown))
    return [o for o in found if '.' in o or '%' in o or len(plain(o)) > 2]

def made_numbers(cells: list) -> set[str]:
    "All numbers of code and of its outputs."
    texts = []
    for cell in cells:
        texts.append(text_of(cell['source']))
        for o in cell['outputs']:
            texts.append(text_of(o.get('text', '')))
            texts += [text_of(v) for k, v in o.get('data', {}).items() if k.startswith('text/')]
    return {plain(o) for o in ANYWHERE.findall('\n'.join(texts))}

def unmade(cells: list) -> list[str]:
    "Numbers in prose that no code makes: neither as they stand, nor rounded, nor as a share of 1."
    known = made_numbers([o for o in cells if o['cell_type'] == 'code'])
    values = {float(o) for o in known}
    def made(number):
        n = plain(number)
        digits = len(n.partition('.')[2])
        return n in known or any(float(n) in (round(v, digits), round(100*v, digits)) for v in values)
    prose = '\n'.join(text_of(o['source']) for o in cells if o['cell_type'] == 'markdown')
    return [o for o in prose_numbers(prose) if not made(o)]

@pytest.mark.parametrize('path', layout.notebooks(layout.ROOT), ids=lambda o: o.stem)
def test_code_makes_the_numbers_in_prose(path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    found, listed = {plain(o) for o in unmade(cells)}, {plain(o) for o in EXCEPTIONS.get(path.stem, {})}
    assert not found - listed, f'{path.stem}: no output and no code has {sorted(found - listed)}'
    assert not listed - found, f'{path.stem}: the exceptions {sorted(listed - found)} are not needed any more'

def code(source, said=''):
    return dict(cell_type='code', source=source, outputs=[dict(output_type='stream', text=said)])
def words(text): return dict(cell_type='markdown', source=text)

def test_a_number_that_no_code_makes_is_found():
    said = 'It gains 3.5 points, to 81.2 %, in 1,234 steps (arXiv 2109.01903, section 6.3); `9.99`, $7.77$.'
    cells = [words(said)]
    assert unmade(cells) == ['3.5', '81.2 %', '1,234']
    assert unmade([*cells, code('steps = 1_234', 'from .7768 to .81203')]) == ['3.5']
    assert unmade([*cells, code('', '{"gain": 3.46, "to": 81.2, "steps": 1234}')]) == []
    assert unmade([words('Two of 12 are 20 words.')]) == []  # small whole numbers are words
