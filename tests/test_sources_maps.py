"Label maps: whose number a folder means, and folders that were mixed up."
import numpy as np
import paper_data
import pytest
from datasets import disable_progress_bars

from sae_ft.sources_layouts import class_folders, labels_of, relabelled
from sae_ft.sources_maps import _second_look, _timm, by_synset, imagenet, objectnet, synsets

disable_progress_bars()
ALL = synsets()

def test_facts_of_imagenet():
    assert len(ALL) == 1000 and list(ALL) == sorted(ALL)
    of = dict(n01440764=0, n02123045=281, n15075141=999)  # tench, tabby cat, toilet paper
    assert {o: ALL.index(o) for o in of} == of
    assert [len(set(synsets(o)) & set(ALL)) for o in ('imagenet_r', 'imagenet_a')] == [200, 200]
    known = {2: 970, 3: 230, 4: 809, 5: 516}  # of the official ground truth, by the sorted synsets
    assert all(label in _second_look()[k - 1] for k, label in known.items())

@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp('imagenet')
    paper_data.imagenet(root, train=1)
    return root

def test_every_layout_gives_the_numbers_of_imagenet(whole):
    for o in ('imagenet/train', 'imagenet/val', 'sketch', 'imagenetv2-matched-frequency-format-val'):
        found = imagenet(whole/o)
        assert labels_of(found.data).tolist() == list(range(1000))
        assert found.counts_as is None and not found.notes
        assert found.data.features['label'].names == list(ALL) and found.words[0] == 'tench'

@pytest.mark.parametrize('of', ['imagenet_r', 'imagenet_a'])
def test_subsets(whole, of):
    found = imagenet(whole/of.replace('_', '-'), of=of)
    want = [ALL.index(o) for o in synsets(of)]
    assert labels_of(found.data).tolist() == want and found.counts_as == {i: i for i in want}
    assert found.classes == 200

def test_objectnet_has_the_classes_that_are_in_imagenet(whole):
    found = objectnet(whole/'objectnet-1.0')
    assert found.classes == 113 and len(found.data) == 113  # two folders have none
    assert labels_of(found.data).tolist() == [2*i for i in range(113)]
    assert found.counts_as == {o: 2*i for i in range(113) for o in (2*i, 2*i + 1)[:1 + (i % 3 == 0)]}

# --- what may be wrong

def swapped(root, a, b):
    (root/a).rename(root/'away')
    (root/b).rename(root/a)
    (root/'away').rename(root/b)

@pytest.fixture
def train(tmp_path):
    paper_data.classes(tmp_path/'train', ALL)
    return tmp_path/'train'

def fails(says, folder, **kw):
    with pytest.raises(ValueError, match=says) as e: imagenet(folder, **kw)
    assert '\n' not in str(e.value) and len(str(e.value)) < 400
    return str(e.value)

def test_a_missing_class_folder(train):
    (train/'n02123045').rename(train.parent/'away')
    fails(r"has no picture of 1 of its 1,000 classes, the first is n02123045 \(tabby cat\)", train)
    (train/'n02123045').mkdir()  # an empty one is missing, too
    fails('has no picture of 1 of its 1,000 classes', train)

def test_swapped_synsets_of_train(train):
    swapped(train, 'n01440764', 'n01443537')
    assert 'n01443537_0.JPEG' in fails('synsets were swapped', train)

def test_a_folder_that_is_no_class(train):
    paper_data.classes(train, ['n99999999'])
    fails("the class 'n99999999', which is none of the 1,000", train)

def test_classes_of_another_set(whole):
    fails(r'has no picture of \d+ of its 200 classes', whole/'imagenet-r', of='imagenet_a')
    fails(r'which is none of its 200 classes', whole/'imagenet'/'val', of='imagenet_a')

def test_pictures_without_class_folders(tmp_path):
    paper_data.classes(tmp_path, ['val'], 5)
    fails('holds 5 pictures but no class folders', tmp_path/'val')

def val_folder(root, order):
    "Eight numbered pictures of each of 25 classes, in the folders that `order` says."
    paper_data.classes(root, ALL, 1, 'other_{i}.JPEG')
    for i in range(25):
        shown = [k for k, o in enumerate(_second_look(), 1) if i in o][:8]
        for k in shown: (root/ALL[order[i]]/f'ILSVRC2012_val_{k:08d}.JPEG').touch()
    return root

def test_swapped_synsets_of_val(tmp_path):
    right, swap = list(range(25)), [1, 0, *range(2, 25)]
    assert imagenet(val_folder(tmp_path/'right', right)).classes == 1000
    said = fails('none of 8 pictures of', val_folder(tmp_path/'swapped', swap))
    assert 'n01440764 (tench)' in said and 'synsets were swapped' in said

def test_folders_of_v2_that_were_sorted_as_texts(tmp_path):
    "A copy that numbers the folders 0, 1, 10, 100 by the alphabet is read by what they say, and told."
    order = sorted(map(str, range(1000)))
    paper_data.classes(tmp_path/'v2', order, 1, '{c}.jpeg')
    found = class_folders(tmp_path/'v2')
    features = found.features.copy()
    features['label'].names = order
    texts = found.remove_columns('label').add_column('label', [order.index(str(i)) for i in range(1000)])
    (tmp_path/'copy').mkdir()
    texts.cast(features).to_parquet(tmp_path/'copy'/'test.parquet')
    read = imagenet(tmp_path/'copy')
    assert 'sorted as texts (0, 1, 10, 100, ...)' in read.notes[0]
    assert labels_of(read.data).tolist() == list(range(1000))

def test_names_of_the_hub_in_another_order(whole):
    lemmas = dict(o.split('\t') for o in _timm('imagenet_synset_to_lemma.txt').splitlines())
    names, plain = [lemmas[o] for o in ALL], imagenet(whole/'imagenet'/'val').data
    names = [o if names.index(o) == i else f'{o} ({i})' for i, o in enumerate(names)]  # there are two cranes
    assert by_synset(relabelled(plain, np.arange(1000), names), 'here').classes == 1000
    names[3], names[4] = names[4], names[3]
    with pytest.raises(ValueError, match="class 3 of 'here' is called 'hammerhead.*in another order"):
        by_synset(relabelled(plain, np.arange(1000), names), 'here')

def test_objectnet_without_its_maps_or_a_class(tmp_path):
    paper_data.objectnet(tmp_path)
    (tmp_path/'images'/'thing_007').rename(tmp_path/'away')
    with pytest.raises(ValueError, match="of its 113 classes, the first is 'thing_007'"): objectnet(tmp_path)
    (tmp_path/'mappings'/'objectnet_to_imagenet_1k.json').write_text('{"Thing 000": "a unicorn"}')
    with pytest.raises(ValueError, match="maps to 'a unicorn', which is no class"): objectnet(tmp_path)
    (tmp_path/'mappings'/'objectnet_to_imagenet_1k.json').unlink()
    with pytest.raises(FileNotFoundError, match="comes with ObjectNet's archive"): objectnet(tmp_path)
