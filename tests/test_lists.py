"Lists: a CSV file trains like a folder with the same pictures, and what is wrong with one is a sentence."
import pytest
from small_data import cache, fails, folder, load, sizes  # noqa: F401

from sae_ft.data import undecoded
from sae_ft.lists import read_list


def listed(root, head='image,label', line='{},{}', name='list.csv', encoding='utf-8'):
    "A list of the pictures of a folder of class folders."
    rows = [line.format(o.relative_to(root).as_posix(), o.parent.name) for o in sorted(root.glob('*/*.png'))]
    (root/name).write_text('\n'.join([head, *rows]) + '\n', encoding=encoding)
    return root/name


def test_a_list_gives_what_a_folder_gives(tmp_path):
    root = folder(tmp_path/'own', {'cat': 30, 'dog': 20})
    as_folder = load(root)
    as_list = load(listed(root))
    assert sizes(as_list) == sizes(as_folder) == [40, 5, 5] and as_list.classnames == ['cat', 'dog']
    assert as_list.fingerprint == as_folder.fingerprint


@pytest.mark.parametrize('head, line, name, encoding', [
    ('Path;Class', '{};{}', 'a.csv', 'utf-8-sig'), ('file_name\tlabel', '{}\t{}', 'a.tsv', 'utf-8'),
    ('label,image', '"{1}","{0}"', 'a.csv', 'utf-8')])
def test_kinds_of_lists(tmp_path, head, line, name, encoding):
    root = folder(tmp_path, {'cat': 20, 'dog': 20})
    assert load(listed(root, head, line, name, encoding)).classnames == ['cat', 'dog']


def test_splits_of_a_list(tmp_path):
    root = folder(tmp_path, {'cat': 12, 'dog': 12})
    rows = [f'{c}/{i:03}.png,{c},{"Validation" if i < 2 else "test" if i < 6 else "train"}'
            for c in ('cat', 'dog') for i in range(12)]
    (root/'a.csv').write_text('\n'.join(['image,label,split', *rows]))
    s = load(root/'a.csv')
    assert sizes(s) == [12, 4, 8] and s.said == []
    assert {r['image']['path'].rsplit('/', 1)[1] for r in undecoded(s.val)} == {'000.png', '001.png'}


def test_what_is_wrong_with_a_list(tmp_path):
    root = folder(tmp_path, {'cat': 20, 'dog': 20})
    file = listed(root)
    (root/'cat'/'003.png').unlink()
    fails(r'cat/003.png \(no such file\)', file)
    file.write_text('image,label\n../elsewhere.png,cat\n' + file.read_text().split('\n', 1)[1])
    fails('leads out of the data set', file)
    file.write_bytes(b'image,label\n\xff\xfe,cat\n')
    fails('is no UTF-8 text', file)
    file.write_text('')
    fails('cannot be read as a table', file)
    fails('does not exist', tmp_path/'no.csv', FileNotFoundError)
    file.write_text('image,label,split\na.png,cat,test\nb.png,dog,val\n')
    fails('has no train split', file)
    with pytest.raises(ValueError, match='twice, as'):
        file.write_text('image,label\na.png,cat\na.png,dog\n')
        read_list(file)
