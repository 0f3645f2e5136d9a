"The notebooks that look inside a tower run on another one: ViT-B/32, random weights from a file."
import papermill
import pytest

from current import ROOT
from tiny_clip import random_vit_b32

@pytest.fixture(scope='module')
def weights(tmp_path_factory): return random_vit_b32(tmp_path_factory.mktemp('b32'))

@pytest.mark.parametrize('name, limit', [
    ('11_inside_saes', 8), ('11_inside_steering', 2), ('11_inside_suppression', 2), ('11_inside_words', 2)])
def test_a_notebook_runs_on_vit_b32(name, limit, weights, tmp_path):
    done = papermill.execute_notebook(
        ROOT/'nbs'/f'{name}.ipynb', tmp_path/'out.ipynb', cwd=str(tmp_path), progress_bar=False,
        parameters=dict(model='ViT-B-32', pretrained=weights, limit=limit))
    assert all(o.execution_count for o in done.cells if o.cell_type == 'code' and o.source.strip())
