"The page for a colleague: one small file that loads nothing, escapes all names, and can be made of any run."
import re

from sae_ft.features import study_features
from sae_ft.report import write_report
from studies import EVIL, assert_harmless

def test_the_report_is_one_small_file_that_loads_nothing(report_page):
    text = report_page.read_text(encoding='utf-8')
    assert report_page.name == 'report.html' and report_page.stat().st_size < 5e6
    assert not re.search(r'https?://|<script|<link|<iframe|@import|url\(', text)
    sources = re.findall(r'src="([^"]*)"', text)
    assert all(o.startswith('data:image/') for o in sources) and text.count('<img') > 20
    assert "default-src 'none'" in text

def test_the_report_escapes_names(report_page):
    text = report_page.read_text(encoding='utf-8')
    for evil in (*EVIL[:2], 'other <i>', '<u>', '<b>'): assert evil not in text
    assert '&lt;script&gt;alert(1)&lt;' in text and 'other &lt;i&gt;' in text
    assert_harmless(text)

def test_the_report_goes_where_it_is_told_and_twice_gives_the_same(study, report_page, tmp_path):
    again = write_report(study, tmp_path/'x.html')
    assert again == tmp_path/'x.html' and len(again.read_text()) == len(report_page.read_text())

def test_a_report_with_words_of_the_callers(tiny_run, tmp_path):
    named = study_features(tiny_run[1], words=['apple', 'round thing', EVIL[0]], progress=False)
    text = write_report(named, tmp_path/'a.html').read_text(encoding='utf-8')
    assert 'apple (' in text or 'round thing (' in text

def test_a_report_of_a_run_that_changed_nothing_has_no_broken_answers(still_study, tmp_path):
    text = write_report(still_study, tmp_path/'b.html').read_text(encoding='utf-8')
    assert 'Answers that fine-tuning' not in text
