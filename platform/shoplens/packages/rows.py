"""Whatever people give to a model's pyfunc -> rows of cells: a text, a list, a table, photos in memory."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from shoplens.datasets.images import ImageRejected, decode
from shoplens.datasets.photo_text import is_data_uri, photo_bytes
from shoplens.errors import ShoplensError

COLUMNS = ("text", "image", "topic")
_BASE64_OF_PHOTOS = ("/9j/", "iVBORw0KGgo", "UklGR")
"""Beginnings of JPEG, PNG and WebP in base64."""
_OF_PNG = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
_WITH_ALPHA = ("PA", "La", "RGBa")


class Rows(NamedTuple):
    """`cells` are the cells of each row that have a value, by column; columns that the model does not read are left out."""

    cells: list[dict[str, Any]]
    index: pd.Index


def rows(data: Any, takes: Sequence[str]) -> Rows:
    """The rows of a table (pandas, or anything with `to_pandas`), a mapping of columns, a list, a Series or one value.

    takes   the columns that the model reads. A value without a column is a photo if it is one (a data URI and base64 of
            a photo too), else it belongs to the first of `text` and `topic` that the model reads

    None, NaN, and texts and bytes without content are no values. Raises ShoplensError if no column is one that the model
    reads, or if a text is no string.
    """
    if hasattr(data, "to_pandas"):
        data = data.to_pandas()
    if isinstance(data, pd.Series) and not set(takes).isdisjoint(data.index):  # a row, as `table.iloc[0]` gives it
        data = data.to_dict()
    if isinstance(data, Mapping):
        data = _table(data)
    if isinstance(data, pd.DataFrame):
        records: Iterable[Any] = (dict(zip(data.columns, cells, strict=True)) for cells in data.itertuples(index=False))
        _check(list(data.columns), takes)
        index = data.index
    elif isinstance(data, pd.Series) and data.name in takes:
        records, index = ({data.name: cell} for cell in data), data.index
    else:
        records = _many(data) or [] if _are_many(data) else [data]
        index = data.index if isinstance(data, pd.Series) else pd.RangeIndex(len(records))
        named = dict.fromkeys(name for record in records if isinstance(record, Mapping) for name in record)
        if named:
            _check(list(named), takes)
    return Rows([_cells(place, _record(record, takes), takes) for place, record in enumerate(records)], index)


def photo(cell: Any) -> Image.Image:
    """The photo of a cell: RGB, upright. A cell is bytes, a data URI, base64, a `pathlib.Path`, a PIL image, or an array
    uint8 [height, width, 3]. A text is never the name of a file, because the text may be a stranger's.

    Raises ImageRejected.
    """
    if isinstance(cell, Mapping):  # as `datasets` of Hugging Face stores photos in Parquet
        cell = cell.get("bytes")
    if isinstance(cell, np.ndarray):
        cell = _of_array(cell)
    if isinstance(cell, Image.Image):
        png = _png(cell)
        return decode(png, max_bytes=len(png)).image
    if isinstance(cell, os.PathLike):
        try:
            with open(cell, "rb") as file:
                return decode(file.read()).image
        except OSError as error:
            raise ImageRejected("unreadable", f"the file {cell} cannot be read: {error.strerror}") from error
    if isinstance(cell, str):
        try:
            return decode(photo_bytes(cell)).image
        except ImageRejected as error:
            if error.reason != "unreadable" or is_data_uri(cell):
                raise
            raise ImageRejected(error.reason, f"{error}; give a file as pathlib.Path") from error
    if isinstance(cell, bytes | bytearray | memoryview):
        return decode(bytes(cell)).image
    raise ImageRejected("format", f"the image is of type {type(cell).__name__}; give bytes, base64 or a PIL image")


def _check(names: list[Any], takes: Collection[str]) -> None:
    for name in names:
        meant = str(name).strip().lower()
        if name != meant and meant in takes and meant not in names:
            raise ShoplensError(f"the model reads the columns {_listed(takes)}: rename {name!r} to {meant!r}")
    if not set(names) & set(takes):
        raise ShoplensError(
            f"the model reads the columns {_listed(takes)}, but there is {_listed(names[:9]) or 'none'}"
        )


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(repr, names))


def _table(columns: Mapping[Any, Any]) -> pd.DataFrame:
    """Columns of cells, or one cell for all rows. Raises ShoplensError if their lengths differ."""
    many = {name: _many(cells) for name, cells in columns.items() if _are_many(cells)}
    lengths = {len(cells) for cells in many.values()}
    if len(lengths) > 1:
        raise ShoplensError(f"the columns have {' and '.join(map(str, sorted(lengths)))} rows: give equally many")
    n = lengths.pop() if lengths else 1
    filled = {name: many.get(name, [cell] * n) for name, cell in columns.items()}
    return pd.DataFrame({name: pd.Series(cells, range(n), dtype=object) for name, cells in filled.items()})


def _are_many(data: Any) -> bool:
    if isinstance(data, np.ndarray):
        return data.ndim > 0 and not (data.dtype.kind in "buif" and data.ndim in (2, 3))  # these are pixels
    return isinstance(data, list | tuple | pd.Series | pd.Index)


def _many(data: Any) -> list[Any]:
    if isinstance(data, np.ndarray) and data.size == len(data):  # a column of texts
        data = data.ravel()
    return list(data)


def _record(record: Any, takes: Sequence[str]) -> Mapping[Any, Any]:
    if isinstance(record, Mapping):
        return record
    cell = _plain(record)
    if not isinstance(cell, str) or is_data_uri(cell) or (len(cell) > 60 and cell.startswith(_BASE64_OF_PHOTOS)):
        return {"image": cell}
    return {next(name for name in ("text", "topic", "image") if name in takes): cell}


def _cells(place: int, record: Mapping[Any, Any], takes: Iterable[str]) -> dict[str, Any]:
    cells = {name: _plain(record[name]) for name in takes if name in record}
    cells = {name: cell for name, cell in cells.items() if not _is_empty(cell)}
    for name, cell in cells.items():
        if name != "image" and not isinstance(cell, str):
            raise ShoplensError(f"row {place}: the {name} is of type {type(cell).__name__}; give a string")
    return cells


def _plain(cell: Any) -> Any:
    return cell.item() if isinstance(cell, np.ndarray) and cell.ndim == 0 else cell


def _is_empty(cell: Any) -> bool:
    if isinstance(cell, str):
        return not cell.strip()
    if isinstance(cell, bytes | bytearray | memoryview):
        return len(cell) == 0
    return bool(pd.api.types.is_scalar(cell) and pd.isna(cell))


def _of_array(pixels: np.ndarray) -> Image.Image:
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    is_photo = pixels.size > 0 and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4)))
    if pixels.dtype != np.uint8 or not is_photo:
        raise ImageRejected(
            "format", f"the image is an array {pixels.dtype} {list(pixels.shape)}; give uint8 [height, width, 3]"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _png(image: Image.Image) -> bytes:
    """The image as a file, so that it is judged and turned as every other photo."""
    out = io.BytesIO()
    try:
        if image.mode not in _OF_PNG:
            image = image.convert("RGBA" if image.mode in _WITH_ALPHA else "RGB")
        image.save(out, "PNG", compress_level=1, exif=image.getexif())
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageRejected("truncated", f"the image is cut short or damaged ({error})") from error
    return out.getvalue()
