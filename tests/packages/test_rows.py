"""What people give to a pyfunc, and the rows that it becomes."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shoplens.datasets.images import ImageRejected, decode
from shoplens.errors import ShoplensError
from shoplens.packages.rows import photo, rows

BOTH = ("text", "image")
PIXELS = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)


def png(image: Image.Image | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    (Image.fromarray(PIXELS) if image is None else image).save(out, "PNG", **options)
    return out.getvalue()


@settings(max_examples=30)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_texts_in_any_container_are_the_same_rows(texts: list[str]) -> None:
    expected = [{"text": text} for text in texts]
    for data in (
        pd.DataFrame({"text": texts}),
        pd.DataFrame({"id": range(len(texts)), "text": texts, "image": None}),
        pd.Series(texts, name="text"),
        pd.Series(texts, name="title"),
        pd.Series(texts, dtype=object),
        {"text": texts},
        {"text": np.array(texts, dtype=object)},
        [{"text": text, "image": np.nan} for text in texts],
        [{"text": np.array(text, dtype=object)} for text in texts],
        tuple(texts),
        np.array(texts, dtype=object),
        np.array(texts, dtype=object)[:, None],
    ):
        assert rows(data, BOTH).cells == expected
    assert rows(texts[0], BOTH).cells == expected[:1]
    assert rows(pd.DataFrame({"id": 7, "text": texts}).iloc[0], BOTH).cells == expected[:1]


def test_a_value_without_a_column_belongs_to_one_that_the_model_reads() -> None:
    encoded = base64.b64encode(png()).decode()
    for takes, column in ((BOTH, "text"), (("image", "topic"), "topic"), (("image",), "image"), (("text",), "text")):
        assert rows(["words"], takes).cells == [{column: "words"}]
    for value in (png(), bytearray(png()), encoded, f"data:image/png;base64,{encoded}", Path("x.png"), PIXELS):
        assert rows([value], BOTH).cells[0].keys() == {"image"}
        assert rows([{"image": value, "text": "words", "topic": 3}], ("image",)).cells[0].keys() == {"image"}
        assert rows(value, BOTH).cells[0].keys() == {"image"}


@pytest.mark.parametrize("empty", [None, np.nan, float("nan"), pd.NA, pd.NaT, "", " \n", b"", np.array(None)])
def test_a_cell_without_content_is_no_value(empty: Any) -> None:
    assert rows([{"text": empty, "image": b"x"}], BOTH).cells == [{"image": b"x"}]
    assert rows(pd.DataFrame({"text": ["a", empty]}, dtype=object), BOTH).cells == [{"text": "a"}, {}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pd.DataFrame({"Text": ["a"]}), "'text', 'image': rename 'Text' to 'text'"),
        (pd.DataFrame({"text": ["a"], " Image": [b"x"]}), "rename ' Image' to 'image'"),
        (pd.DataFrame({"title": ["a"]}), "'text', 'image', but there is 'title'"),
        (pd.DataFrame(["a"]), "'text', 'image', but there is 0"),
        (pd.DataFrame(), "'text', 'image', but there is none"),
        ({"texts": ["a"]}, "but there is 'texts'"),
        ([{"caption": "a"}], "but there is 'caption'"),
        ({"text": ["a", "b"], "image": [b"x"]}, "the columns have 1 and 2 rows"),
        ([{"text": "a"}, {"text": 3}], "row 1: the text is of type int"),
        ({"text": [b"a"]}, "row 0: the text is of type bytes"),
        ({"text": [["a"]]}, "row 0: the text is of type list"),
    ],
)
def test_a_wrong_table_is_told_with_the_columns(data: Any, message: str) -> None:
    with pytest.raises(ShoplensError, match=message):
        rows(data, BOTH)


def test_the_index_of_a_table_is_kept() -> None:
    assert list(rows(pd.DataFrame({"text": ["a", "b"]}, index=[7, 3]), BOTH).index) == [7, 3]
    assert list(rows(pd.Series(["a", "b"], index=["x", "y"]), BOTH).index) == ["x", "y"]
    assert (rows([], BOTH).cells, len(rows([], BOTH).index)) == ([], 0)


def test_a_photo_in_any_form_is_the_same_pixels(tmp_path: Path) -> None:
    data = png()
    (tmp_path / "photo").write_bytes(data)
    for cell in (
        *(data, bytearray(data), memoryview(data), tmp_path / "photo", {"bytes": data, "path": None}),
        *(base64.b64encode(data).decode(), base64.encodebytes(data).decode(), base64.urlsafe_b64encode(data).decode()),
        *(Image.open(io.BytesIO(data)), PIXELS, PIXELS.transpose(2, 0, 1), np.asfortranarray(PIXELS)),
    ):
        assert np.array_equal(np.asarray(photo(cell)), PIXELS), type(cell)
    grey = PIXELS[:, :, 0]
    for cell in (grey, grey[:, :, None], grey[None], Image.fromarray(grey)):
        assert np.array_equal(np.asarray(photo(cell)), np.repeat(grey[:, :, None], 3, axis=2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_a_pil_image_of_any_mode_is_what_its_file_is(mode: str) -> None:
    source = Image.fromarray(np.dstack([PIXELS, PIXELS[:, :, 0]])).convert(
        "RGB" if mode in ("P", "HSV", "YCbCr") else "RGBA"
    )
    image = source.convert("RGB").convert(mode) if mode in ("CMYK", "1") else source.convert(mode)
    portable = (
        image.convert("RGBA")
        if mode in ("PA", "RGBa")
        else image.convert("RGB")
        if mode in ("CMYK", "YCbCr", "HSV")
        else image
    )
    assert np.array_equal(np.asarray(photo(image)), np.asarray(decode(png(portable)).image))


def test_a_pil_image_is_turned_upright_as_its_file_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = png(exif=exif)
    assert np.array_equal(np.asarray(photo(Image.open(io.BytesIO(data)))), np.asarray(decode(data).image))
    assert photo(Image.open(io.BytesIO(data))).size == (6, 9)


@settings(max_examples=30)
@given(st.integers(0, 400))
def test_a_text_is_never_the_name_of_a_file(length: int) -> None:
    """zlib.compress level 0 lets the size, and so the length of the base64, be any."""
    comment = png(Image.fromarray(PIXELS))[:33] + zlib.compress(b"x" * length, 0)
    text = base64.b64encode(comment).decode()
    with pytest.raises(ImageRejected, match="truncated|cut short|damaged|not an image|cannot be decoded"):
        photo(text)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (3, "of type int"),
        ({"path": "/etc/passwd"}, "of type NoneType"),
        (PIXELS.astype(np.float32) / 255, r"array float32 \[6, 9, 3\]; give uint8"),
        (PIXELS[:, :, :2], r"array uint8 \[6, 9, 2\]"),
        (PIXELS[:0], r"array uint8 \[0, 9, 3\]"),
        ("/etc/passwd", "give a file as pathlib.Path"),
        (Path("/no/such/photo.jpg"), "cannot be read: No such file"),
        (Path("/"), "cannot be read"),
        (Image.open(io.BytesIO(png()[:-60])), "cut short"),
    ],
)
def test_what_is_no_photo_is_told(cell: Any, message: str) -> None:
    with pytest.raises(ImageRejected, match=message):
        photo(cell)
