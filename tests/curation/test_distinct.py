from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.curation.distinct import distinct


@given(st.lists(st.integers(-5, 5) | st.integers(-(2**62), 2**62), max_size=40))
def test_equals_numpy(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    assert distinct(array).tolist() == np.unique(array).tolist()


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
def test_the_ends_of_a_type_and_no_values(dtype: type[np.integer]) -> None:
    ends = np.array([np.iinfo(dtype).max, np.iinfo(dtype).min, np.iinfo(dtype).max], dtype=dtype)
    assert distinct(ends).tolist() == [np.iinfo(dtype).min, np.iinfo(dtype).max]
    assert distinct(ends[:0]).tolist() == []
    assert distinct(ends).dtype == dtype
