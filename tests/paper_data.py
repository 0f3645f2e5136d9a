"The paper's data sets, tiny, in the very layouts in which they are handed out."
import io, json

import numpy as np
import pandas as pd
import PIL.Image
from datasets.table import embed_table_storage
from scipy.io import savemat

from sae_ft.sources_maps import synsets

def jpegs(n: int, size: int = 40) -> list[bytes]:
    "Files of n pictures of noise in a colour of its own."
    rng = np.random.default_rng(0)
    def file():
        pixels = (rng.integers(0, 256, 3) + rng.normal(0, 30, (size, size, 3))).clip(0, 255)
        buffer = io.BytesIO()
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(buffer, 'jpeg')
        return buffer.getvalue()
    return [file() for _ in range(n)]

FILES = jpegs(97)

def classes(folder, names, n=1, name='{c}_{i}.JPEG'):
    "A folder of class folders, with n pictures of each."
    for j, c in enumerate(names):
        (folder/c).mkdir(parents=True)
        for i in range(n): (folder/c/name.format(c=c, i=i)).write_bytes(FILES[(7*j + i) % len(FILES)])

def objectnet(folder, n=1):
    "113 of ObjectNet's classes with one or two classes of ImageNet, and two with none."
    folders = [f'thing_{i:03}' for i in range(115)]
    classes(folder/'images', folders, n, '{i}.png')  # its files are PNG; what a file is, its bytes say
    (folder/'mappings').mkdir()
    def write(name, o): (folder/'mappings'/name).write_text(json.dumps(o))
    write('folder_to_objectnet_label.json', {o: o.replace('_', ' ').title() for o in folders})
    of = {f'Thing {i:03}': f'class {2*i}' + f'; class {2*i + 1}'*(i % 3 == 0) for i in range(113)}
    write('objectnet_to_imagenet_1k.json', of)
    lines = [f'class {i}' for i in range(1000)][::-1]
    write('pytorch_to_imagenet_2012_id.json', {str(i): 999 - i for i in range(1000)})
    (folder/'mappings'/'imagenet_to_label_2012_v2').write_text('\n'.join(lines) + '\n')

def imagenet(root, train=2):
    "ImageNet and its five shifts."
    of = synsets()
    classes(root/'imagenet'/'train', of, train)
    classes(root/'imagenet'/'val', of, 1, 'val_{i}.JPEG')
    classes(root/'imagenetv2-matched-frequency-format-val', map(str, range(1000)), 1, '{i}.jpeg')
    classes(root/'imagenet-r', synsets('imagenet_r'), 1, 'art_{i}.jpg')
    classes(root/'imagenet-a', synsets('imagenet_a'), 1, '0.{i}.jpg')
    classes(root/'sketch', of, 1, 'sketch_{i}.JPEG')
    objectnet(root/'objectnet-1.0')

def iwildcam(root, C=182):
    "Two pictures of every class in each split."
    folder = root/'iwildcam_v2.0'
    (folder/'train').mkdir(parents=True)
    rows = [(f'{s}-{c}-{i}.jpg', s, c) for s in ('train', 'val', 'test', 'id_val', 'id_test')
            for c in range(C) for i in range(2)]
    for j, (file, *_) in enumerate(rows): (folder/'train'/file).write_bytes(FILES[j % len(FILES)])
    pd.DataFrame(rows, columns=['filename', 'split', 'y']).to_csv(folder/'metadata.csv', index=False)
    names = [(c, f'animal {c}') for c in range(C)] + [(99999, 'nobody')]
    pd.DataFrame(names, columns=['y', 'name']).to_csv(folder/'categories.csv', index=False)

def fmow(root, C=62):
    "A picture of every class in each split of the challenge and each of three years; regions differ in size."
    folder, countries = root/'fmow_v1.1', ['KEN', 'FRA', 'FRA', 'USA', 'USA', 'USA', 'ATA']
    (folder/'images').mkdir(parents=True)
    rows = [(s, f'kind_{c:02}', f'{year}-05-01T10:00:00Z') for year in (2010, 2014, 2016)
            for s in ('train', 'val', 'test', 'seq') for c in range(C)]
    table = pd.DataFrame(rows, columns=['split', 'category', 'timestamp'])
    table['country_code'] = [countries[i % 7] for i in table.index]
    table.to_csv(folder/'rgb_metadata.csv', index=False)
    regions = [('KEN', 'Africa'), ('FRA', 'Europe'), ('USA', 'Americas')]
    codes = pd.DataFrame(regions, columns=['alpha-3', 'region'])
    codes.to_csv(folder/'country_code_mapping.csv', index=False)
    for i in table.index: (folder/'images'/f'rgb_img_{i}.png').write_bytes(FILES[i % len(FILES)])

def dtd(root, C=47):
    "One picture of every texture."
    folder, names = root/'dtd'/'dtd', [f'texture{i:02}' for i in range(C)]
    classes(folder/'images', names, 1, '{c}_{i}.jpg')
    (folder/'labels').mkdir()
    (folder/'labels'/'test1.txt').write_text('\n'.join(f'{c}/{c}_0.jpg' for c in names))

def pets(root, C=37):
    "One picture of every breed."
    folder, names = root/'oxford-iiit-pet', [f'breed{i}_of_pet' for i in range(C)]
    for o in ('images', 'annotations/trimaps'): (folder/o).mkdir(parents=True)
    for i, c in enumerate(names): (folder/'images'/f'{c}_1.jpg').write_bytes(FILES[i])
    (folder/'annotations'/'test.txt').write_text('\n'.join(f'{c}_1 {i + 1} 1 1' for i, c in enumerate(names)))

def cars(root, C=196):
    "One picture of every car, in MATLAB's files."
    folder, names = root/'stanford_cars', [f'Maker {i} 2012' for i in range(C)]
    for o in ('devkit', 'cars_test'): (folder/o).mkdir(parents=True)
    for i in range(C): (folder/'cars_test'/f'{i:05}.jpg').write_bytes(FILES[i % len(FILES)])
    kind = [('fname', object), ('class', np.uint8)]
    rows = np.array([(f'{i:05}.jpg', i + 1) for i in range(C)], dtype=kind)
    savemat(folder/'cars_test_annos_withlabels.mat', dict(annotations=rows))
    savemat(folder/'devkit'/'cars_meta.mat', dict(class_names=np.array(names, dtype=object)))

def parquet(ds, file):
    "The data set as the hub keeps it: with its pictures inside, which are called by the ends of their paths."
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = ds.with_format('arrow').map(embed_table_storage, batched=True, batch_size=1000).with_format(None)
    whole.to_parquet(file)
