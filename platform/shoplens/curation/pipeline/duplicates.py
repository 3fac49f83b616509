"""Duplicates of a curation: one photo of each group stays, with what is known of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from shoplens.curation.near_duplicates import near_photos
from shoplens.curation.photo.duplicates import BITS, groups, representatives, telling
from shoplens.curation.pipeline.files import write_table
from shoplens.datasets.format import Dataset

GROUPS = pa.schema([("number", pa.int64()), ("kept", pa.int64()), ("distance", pa.int32()), ("held_out", pa.bool_())])
"""The group of each usable photo: the number of the photo that is kept of it, the bits in which the hash differs from
that photo's, and whether the group has a photo of a held-out dataset."""
_COLUMNS = ["number", "phash", "sha256", "sharpness", "white", "width", "height", "bytes"]


def group_photos(signals: Path, cut: Path, held_out: Sequence[str] = ()) -> None:
    """Writes `cut/groups.parquet` from the measured parts unless it is there. Holds some 400 bytes a photo in memory."""
    if (cut / "groups.parquet").exists():
        return
    table = ds.dataset(sorted(map(str, (signals / "photos").glob("*.parquet"))), format="parquet").to_table(
        _COLUMNS, filter=ds.field("fault").is_null()
    )
    table = table.sort_by("number")
    number = table["number"].to_numpy()
    phash = table["phash"].to_numpy()
    tells = telling(table["sharpness"].to_numpy(), table["white"].to_numpy())
    digest = table["sha256"].combine_chunks()
    file = digest.dictionary_encode().indices.to_numpy().astype(np.int64)
    group = groups(phash, file, tells)
    area = table["width"].to_numpy().astype(np.int64) * table["height"].to_numpy()
    kept = representatives(group, area, table["bytes"].to_numpy())[group] if len(group) else group
    leaked = np.zeros(len(number), bool)
    for path in held_out:
        images = Dataset(path).images
        leaked |= near_any(phash, images["phash"].to_numpy()) & tells
        leaked |= pc.is_in(digest, value_set=images["sha256"].combine_chunks()).to_numpy(zero_copy_only=False)
    leaked = np.isin(group, np.unique(group[leaked]))
    columns = [number, number[kept], np.bitwise_count(phash ^ phash[kept]).astype(np.int32), leaked]
    write_table(cut / "groups.parquet", pa.table(columns, GROUPS.names), GROUPS)


def near_any(phash: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool [n]: whether each of `phash`, uint64 [n], is within `BITS` bits of one of `others`, uint64 [m]."""
    value, of_row = np.unique(phash, return_inverse=True)
    theirs = np.unique(others)
    pairs = near_photos(np.concatenate([theirs, value]), BITS).pairs
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    near = np.zeros(len(value), bool)
    near[high[(low < len(theirs)) & (high >= len(theirs))] - len(theirs)] = True
    return near[of_row.ravel()]
