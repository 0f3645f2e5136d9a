"What is there of a suite: each thing that may be wrong has its sentence, before anything is opened."
import paper_data
import pytest
from datasets import disable_progress_bars

from sae_ft.sources_status import check_suite, read_paper_suite
from sae_ft.suites import load_suite

disable_progress_bars()
pytestmark = pytest.mark.filterwarnings('ignore:.*pictures of', 'ignore:.*share a name')

@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    for make in (paper_data.iwildcam, paper_data.fmow, paper_data.dtd, paper_data.pets): make(root)
    return root

def refused(spec, root):
    with pytest.raises((ValueError, FileNotFoundError)) as e: read_paper_suite(spec, root)
    text = str(e.value)
    assert '\n' not in text and len(text) < 500, text
    return text

def test_a_table_of_what_is_there(root):
    table = check_suite('iwildcam', root)
    assert list(table.index) == ['train', 'val', 'id', 'ood']
    assert table.classes.tolist() == [182]*4 and table.pictures.tolist() == [364]*4
    assert table.published_pictures.tolist() == [129809, 7314, 8154, 42791]
    assert all(o.startswith('ready; 364 pictures of') for o in table.status)

def test_what_is_missing_and_how_to_get_it(root):
    table = check_suite('transfer', root)
    ready = [k for k, o in table.status.items() if o.startswith('ready')]
    assert ready == ['dtd', 'pets'] and (table.pictures > 0).sum() == 2
    assert "'stl10' is not there" in table.status['stl10'] and 'STL10' in table.how_to_get_it['stl10']
    said = refused('transfer', root)
    assert "and 7 more splits are wrong" in said and "choose what is there: 'transfer:dtd,pets'" in said

def test_a_wrong_data_root(root, tmp_path):
    said = refused('imagenet', tmp_path/'x')
    assert "there is no such folder: it must be the one in which 'imagenet/train' lies" in said
    assert "holds none of the 7 splits of 'imagenet'" in refused('imagenet', tmp_path)
    assert "'fmow' needs data_root" in refused('fmow', None)
    assert 'holds none' in refused('fmow', root/'fmow_v1.1')  # one folder too deep

def test_another_number_of_classes(tmp_path):
    paper_data.dtd(tmp_path, C=46)
    assert "has 46 classes, and 'dtd' has 47 (Cimpoi et al. 2014)" in refused('transfer:dtd', tmp_path)

def test_a_split_without_pictures(tmp_path):
    paper_data.iwildcam(tmp_path)
    table = tmp_path/'iwildcam_v2.0'/'metadata.csv'
    table.write_text('\n'.join(o for o in table.read_text().splitlines() if ',id_test,' not in o))
    assert "has no pictures of the split 'id'" in refused('iwildcam', tmp_path)

def test_another_number_of_pictures_is_said(root):
    with pytest.warns(UserWarning, match="'dtd' of 'transfer:dtd': 47 pictures of 1,880"):
        read_paper_suite('transfer:dtd', root)

def test_two_splits_of_the_same_pictures_are_read_once(root):
    _, data = read_paper_suite('fmow', root)
    assert data['ood'] is data['worst-region'] and 'region' in data['ood'].column_names
    suite = load_suite('fmow', data_root=root, progress=False, limit=20)
    a, b = (suite.splits[k].data for k in ('ood', 'worst-region'))
    assert a is b and len(a) == 20

def test_a_suite_beside_another_data_set(root, tmp_path):
    "Transfer sets have heads of their own; the pictures of the data set itself are checked as always."
    suite = load_suite('fmow', 'transfer:pets', data_root=root, progress=False)
    pets = suite.splits['pets']
    assert pets.classnames[:2] == ['Breed0 Of Pet', 'Breed1 Of Pet'] and pets.kind == 'transfer'
    paper_data.classes(tmp_path/'own', ['cat', 'dog'], 20)
    mixed = load_suite(str(tmp_path/'own'), 'transfer:dtd', data_root=root, progress=False)
    assert list(mixed.splits) == ['test', 'dtd'] and set(mixed.fingerprint) == {'train', 'val', 'test', 'dtd'}
    (tmp_path/'own'/'cat'/'cat_3.JPEG').write_bytes(b'none')
    with pytest.raises(ValueError, match='1 of 40 pictures cannot be read'):
        load_suite(str(tmp_path/'own'), 'transfer:dtd', data_root=root, progress=False)

def test_nothing_to_train_on(root):
    with pytest.raises(ValueError, match='no pictures to train on: name it as suite'):
        load_suite('transfer:dtd', data_root=root, progress=False)

def test_a_folder_that_is_called_like_a_suite(tmp_path, monkeypatch):
    paper_data.classes(tmp_path/'imagenet', ['cat', 'dog'], 20)
    monkeypatch.chdir(tmp_path)
    assert load_suite('imagenet', progress=False).classnames == ['cat', 'dog']
