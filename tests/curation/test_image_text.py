"""One curated record, as a member of a shard."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.curation.image_text import ImageText, Query
from shoplens.errors import ShoplensError

SAMPLE = """{
  "image_hash": " 0001809359 ",
  "image_url": " http://post.phinf.naver.net/image.jpg ",
  "image_size": [512, 317],
  "title": "제주도 흑돼지 맛집",
  "query": ["제주도 흑돼지", "흑돼지 맛집"],
  "title_kelip_score": 0.40019,
  "query_count": [12, 3],
  "query_kelip_score": [0.40338, 0.42050],
  "image_white_pixel_ratio": 0.02587890625,
  "watermark_score": 0.9,
  "ocr_num_box": 3,
  "ocr_ratio_box": 1.1510213216145833
}"""
"""The shape of the published sample: blanks around strings, lists side by side, area of boxes in per cent."""
SHARES = st.none() | st.floats(0, 1)
RECORDS = st.builds(
    ImageText,
    number=st.integers(0, 10**10 - 1),
    url=st.just("https://shop.example/1.jpg"),
    size=st.tuples(st.integers(1, 9999), st.integers(1, 9999)),
    title=st.text(st.characters(codec="utf-8")),
    queries=st.lists(
        st.builds(Query, st.text(st.characters(codec="utf-8")), st.integers(0), st.none() | st.floats(-1, 1)),
        max_size=4,
    ).map(tuple),
    title_score=st.none() | st.floats(-1, 1),
    white=SHARES,
    watermark=SHARES,
    boxes=st.none() | st.integers(0),
    further=st.dictionaries(st.sampled_from(["sha256", "phash", "source"]), st.integers() | st.text(), max_size=2),
)


def test_the_published_sample_is_read_and_written_in_its_order_and_units() -> None:
    record = ImageText.from_json(SAMPLE)
    assert (record.name, record.size, record.url) == ("0001809359", (512, 317), "http://post.phinf.naver.net/image.jpg")
    assert record.queries == (Query("제주도 흑돼지", 12, 0.40338), Query("흑돼지 맛집", 3, 0.4205))
    assert record.boxes_area == pytest.approx(2263 / 196608)
    written, sample = json.loads(record.to_json()), json.loads(SAMPLE)
    assert list(written) == list(sample)
    assert written.pop("ocr_ratio_box") == pytest.approx(sample.pop("ocr_ratio_box"))
    assert written == {k: v.strip() if isinstance(v, str) else v for k, v in sample.items()}


@given(RECORDS)
def test_what_is_written_is_read(record: ImageText) -> None:
    assert ImageText.from_json(record.to_json()) == record
    assert "\n" not in record.to_json()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"query_count": [12]}, "2 queries with 1 counts and 2 scores"),
        ({"title_kelip_score": "removed"}, None),
        ({"image_hash": "12345678901"}, "at most 10 digits"),
        ({"image_hash": "x"}, "not a record"),
        ({"image_size": [1]}, "not a record"),
        ({"image_white_pixel_ratio": 1.5}, "white of photo 1809359 is 1.5: a share is 0 to 1"),
        ({"ocr_ratio_box": 101}, "boxes_area"),
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, object], said: str | None) -> None:
    entries = {**json.loads(SAMPLE), **change}
    if said is None:
        del entries["title_kelip_score"]
        said = "title_kelip_score"
    with pytest.raises(ShoplensError, match=said):
        ImageText.from_json(json.dumps(entries))


def test_entries_behind_the_format_are_kept_and_cannot_replace_its_own() -> None:
    record = ImageText(7, "", (1, 1), "", further={"source": "blog", "sha256": "ab"})
    assert list(json.loads(record.to_json()))[-2:] == ["source", "sha256"]
    with pytest.raises(ShoplensError, match="title"):
        ImageText(7, "", (1, 1), "", further={"title": "another"})
    with pytest.raises(ShoplensError, match="not a record"):
        ImageText.from_json("[]")
    with pytest.raises(ValueError, match="not JSON compliant"):
        ImageText(7, "", (1, 1), "", title_score=float("nan")).to_json()
