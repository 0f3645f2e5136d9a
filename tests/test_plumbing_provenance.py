"Provenance: commit and command, of a repository and a process made for it."
import shutil, subprocess

import pytest
import sae_ft
from sae_ft.plumbing import provenance

@pytest.mark.skipif(shutil.which('git') is None, reason='needs git')
def test_a_changed_file_is_said(tmp_path, monkeypatch):
    (tmp_path/'sae_ft').mkdir()
    (tmp_path/'sae_ft'/'__init__.py').write_text('')
    monkeypatch.setattr(sae_ft, '__file__', str(tmp_path/'sae_ft'/'__init__.py'))
    assert provenance.revision() is None
    def git(*args):
        words = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b', *args]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    git('init')
    assert provenance.revision() is None  # no commit yet
    git('add', '.')
    git('commit', '-m', 'first')
    assert provenance.revision() == git('rev-parse', 'HEAD')
    (tmp_path/'notes').write_text('not code')
    assert provenance.revision() == git('rev-parse', 'HEAD')
    (tmp_path/'sae_ft'/'__init__.py').write_text('edited')
    assert provenance.revision() == git('rev-parse', 'HEAD') + '+changed'

def test_a_command_is_quoted_and_without_its_folder(monkeypatch):
    monkeypatch.setattr(provenance.sys, 'argv', ['/somewhere/papermill', '-p', 'dataset', 'my pictures'])
    monkeypatch.setattr(provenance, 'in_kernel', lambda: False)
    assert provenance.command() == "papermill -p dataset 'my pictures'"
