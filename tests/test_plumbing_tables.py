"Tables: they come back, whoever wrote them, and damage is said."
import random

import pandas as pd
import pytest

from sae_ft.plumbing.tables import read_table, write_table

FRAME = pd.DataFrame(dict(split=['line', 'line', 'é'], label=[0, 1, 2], p=[.5, float('nan'), 1.]))

def test_a_table_comes_back_and_theirs_too(tmp_path):
    frame = FRAME.astype(dict(label='int16'))
    write_table(tmp_path/'x.parquet', frame)
    first = (tmp_path/'x.parquet').read_bytes()
    write_table(tmp_path/'x.parquet', frame)
    assert (tmp_path/'x.parquet').read_bytes() == first
    frame.to_parquet(tmp_path/'theirs.parquet', index=False)
    for o in ('x', 'theirs'): pd.testing.assert_frame_equal(read_table(tmp_path/f'{o}.parquet'), frame)
    with pytest.raises(FileNotFoundError): read_table(tmp_path/'none.parquet')

def test_damage_of_a_table_is_said_or_changes_nothing(tmp_path):
    write_table(path := tmp_path/'x.parquet', FRAME)
    raw, said = path.read_bytes(), 0
    for at in random.Random(0).sample(range(len(raw)), 200):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1:])
        try: pd.testing.assert_frame_equal(read_table(path), FRAME)
        except ValueError as e:
            assert '\n' not in str(e)
            said += 1
    assert said > 100
