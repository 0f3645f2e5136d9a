"""Search without a network or a server: the sections of all pages in one file, and one page with a script.

Pages ask it by a form, so they need no script themselves; search.html opened from a folder works too."""
import html, json, os
from html.parser import HTMLParser
from pathlib import Path

HEADINGS = 'h1', 'h2', 'h3'
SKIPPED = 'style', 'script', 'svg', 'math', 'nav', 'title'

class Sections(HTMLParser):
    "The text below each heading of a page: [address, title of the page, heading, text]."
    def __init__(self, page: str, name: str, title: str):
        super().__init__()
        self.name, self.title, self.found = name, title, []
        self.skipped, self.in_heading = 0, False
        self.open(f'{name}.html')
        self.feed(page)

    def open(self, address, heading=''): self.found.append([address, self.title, heading, ''])
    def handle_starttag(self, tag, attrs):
        if tag in SKIPPED: self.skipped += 1
        if tag not in HEADINGS: return
        self.open(f"{self.name}.html#{dict(attrs).get('id') or ''}")
        self.in_heading = True
    def handle_endtag(self, tag):
        if tag in SKIPPED: self.skipped -= 1
        if tag in HEADINGS: self.in_heading = False
    def handle_data(self, data):
        if not self.skipped: self.found[-1][2 if self.in_heading else 3] += data

def sections(page: str, name: str, title: str) -> list[list[str]]:
    "Sections of a page that say something, spaces made single."
    def tidy(o): return ' '.join(o.replace('¶', ' ').split())
    found = [[address, *map(tidy, texts)] for address, *texts in Sections(page, name, title).found]
    return [o for o in found if o[3]]

def form(name: str) -> str:
    "The field for a search, on the page `name`."
    action = os.path.relpath('search.html', Path(name).parent).replace(os.sep, '/')
    return (f'<form action="{action}" role="search" style="margin-left: auto">'
            '<input type="search" name="q" placeholder="Search" aria-label="Search all pages"></form>')

PAGE = '''<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Search</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 46em; margin: 1em auto; padding: 0 1em; }
main > input { font: inherit; width: 100%; padding: .4em; box-sizing: border-box; }
li { margin: .8em 0; }
p { margin: 0; color: #444; overflow-wrap: anywhere; }
</style></head>
<body>BAR
<main><h1>Search</h1>
<input type="search" id="asked" aria-label="Search all pages" autofocus>
<p id="said" role="status"></p>
<ol id="found"></ol></main>
<script src="search.js"></script>
<script>
const MOST = 40, AROUND = 90;
const [asked, said, list] = ["asked", "said", "found"].map(o => document.getElementById(o));

function score([, title, heading, text], words) {  // 0 unless each word is somewhere
  let sum = 0;
  for (const w of words) {
    const times = Math.min(text.toLowerCase().split(w).length - 1, 10);
    const here = 30*heading.toLowerCase().includes(w) + 10*title.toLowerCase().includes(w) + times;
    if (!here) return 0;
    sum += here;
  }
  return sum;
}

function around(text, words) {  // the first place that has one of them
  const places = words.map(w => text.toLowerCase().indexOf(w)).filter(o => o >= 0);
  const at = Math.max(0, Math.min(...places) - AROUND);
  if (!at || at === Infinity) return text.slice(0, 2*AROUND);
  return text.slice(at, at + 2*AROUND).replace(/^\\S*\\s/, "… ");  // from the next word on
}

function entry([address, title, heading, text], words) {
  const link = document.createElement("a"), place = document.createElement("p");
  link.href = address;
  link.textContent = heading && heading !== title ? `${title}: ${heading}` : title;
  place.textContent = around(text, words);
  const item = document.createElement("li");
  item.append(link, place);
  return item;
}

function search() {
  const words = asked.value.toLowerCase().split(/\\s+/).filter(Boolean);
  const scored = words.length ? SECTIONS.map(s => [score(s, words), s]).filter(o => o[0]) : [];
  scored.sort((a, b) => b[0] - a[0]);
  list.replaceChildren(...scored.slice(0, MOST).map(o => entry(o[1], words)));
  const shown = scored.length > MOST ? `, the best ${MOST} of them shown` : "";
  said.textContent = words.length ? `${scored.length} found${shown}` : "";
}

asked.value = new URLSearchParams(location.search).get("q") || "";
asked.addEventListener("input", search);
search();
</script>
</body></html>
'''

def write_search(to: Path, found: list[list[str]], bar: str):
    "search.html and search.js below the folder `to`."
    text = json.dumps(found, ensure_ascii=False, separators=(',', ':'))
    (to/'search.js').write_text(f'const SECTIONS = {text};\n', encoding='utf-8')
    (to/'search.html').write_text(PAGE.replace('BAR', bar), encoding='utf-8')
