"""Tables in other encodings and dialects, written by the standard library, and tables that are damaged."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.datasets.importing.delimited import Broken, Unquoted, records
from shoplens.datasets.importing.dialect import dialect_of
from shoplens.datasets.importing.rows import RowFile, read_rows
from shoplens.datasets.importing.source import Reject
from shoplens.errors import ShoplensError

ROWS = [{"id": "1", "title": "검정 운동화", "price": "39,000"}, {"id": "2", "title": 'mit "Größe"', "price": "5"}]


def as_csv(rows: list[dict[str, str]], delimiter: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp949"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encoding_and_delimiter_are_found_and_told(tmp_path: Path, encoding: str, delimiter: str) -> None:
    rows = ROWS[:1] if encoding == "cp949" else ROWS
    path = tmp_path / "feed.txt"
    path.write_bytes(as_csv(rows, delimiter).encode(encoding))
    file = RowFile(str(path))
    assert [row for _, row in file] == rows
    told = " ".join(file.dialect.told)
    assert (encoding in told) == (not encoding.startswith("utf-8"))
    assert ("separated by" in told) == (delimiter != ",")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe Überzug Café", "cp1252"),
        ("Платье красное, сумка", "cp1251"),
        ("黒いスニーカー メンズ", "cp932"),
        ("꽃무늬 원피스", "cp949"),
    ],
)
def test_old_encodings(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "feed.csv").write_bytes(f'id,title\n1,"{text}"\n'.encode(encoding))
    [(_, row)] = read_rows(str(tmp_path / "feed.csv"))
    assert isinstance(row, dict) and row["title"] == text


def test_one_bad_byte_does_not_change_the_encoding_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "feed.csv").write_bytes("id,title\n1,검정 운동화\n2,꽃무늬 원피스\n3,".encode() + b"\xff\n4,ok\n")
    rows = dict(row.values() for _, row in read_rows(str(tmp_path / "feed.csv")) if isinstance(row, dict))
    assert (rows["1"], rows["4"]) == ("검정 운동화", "ok")


def test_excel_writes_its_separator_first_and_cells_too_many(tmp_path: Path) -> None:
    (tmp_path / "feed.csv").write_text("sep=;\nid;title;;\n1;a;;\n\n2;b;;;;\n")
    assert list(read_rows(str(tmp_path / "feed.csv"))) == [
        ("feed.csv:3", {"id": "1", "title": "a"}),
        ("feed.csv:5", {"id": "2", "title": "b"}),
    ]


@pytest.mark.parametrize(
    ("prices", "decimal"),
    [
        (["19,99", "5,00"], ","),
        (["19.99", "5"], "."),
        (["12,900", "5"], None),
        (["19,99", "19.99"], None),
        (["1.299,00 €"], ","),
    ],
)
def test_the_decimal_separator_is_that_of_the_prices(tmp_path: Path, prices: list[str], decimal: str | None) -> None:
    rows = [{"id": str(n), "sizes": "36,37", "Sale Price": price} for n, price in enumerate(prices)]
    (tmp_path / "feed.csv").write_text(as_csv(rows, ";"))
    assert dialect_of(str(tmp_path / "feed.csv")).decimal == decimal


@pytest.mark.parametrize("asked", ["csv", "jsonl", "parquet", "xml", None])
@pytest.mark.parametrize("name", ["FEED.CSV", "feed.jsonl", "feed", "feed.csv.gz"])
def test_the_content_decides_what_a_file_is(tmp_path: Path, asked: str | None, name: str) -> None:
    row = {"id": "1", "title": "t"}
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row]), parquet)
    contents = {
        "jsonl": json.dumps(row).encode(),
        "array": json.dumps([row], indent=2).encode(),
        "parquet": parquet.getvalue(),
        "xml": b'<?xml version="1.0"?><rss><channel><item><id>1</id><title>t</title></item></channel></rss>',
    }
    if name.lower().startswith("feed.csv") or asked == "csv":
        contents["csv"] = b"id,title\n1,t\n"
    for kind, data in contents.items():
        (tmp_path / name).write_bytes(gzip.compress(data) if len(kind) % 2 else data)
        file = RowFile(str(tmp_path / name), asked)
        assert [found for _, found in file] == [row], kind
        assert bool(file.dialect.told) == (asked not in (None, "jsonl" if kind == "array" else kind))


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    for data, what in (
        (b"PK\x03\x04..", "Excel"),
        (bz2.compress(b"x"), "bzip2"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "binary"),
    ):
        (tmp_path / "feed").write_bytes(data)
        with pytest.raises(ShoplensError, match=what):
            list(read_rows(str(tmp_path / "feed")))


@pytest.mark.parametrize("text", ["[", '[{"id": 1}, {"id"', '[{"id": 1} {', "[[" * 50_000])
def test_an_array_that_breaks_off(tmp_path: Path, text: str) -> None:
    (tmp_path / "feed.json").write_text(text)
    *whole, (_, last) = read_rows(str(tmp_path / "feed.json"))
    assert isinstance(last, Reject) and last.reason == "malformed_row"
    assert all(row == {"id": 1} for _, row in whole)


def test_a_long_array_is_read_in_blocks(tmp_path: Path) -> None:
    rows = [{"id": n, "description": "[,]" * (n % 7000)} for n in range(300)] + [{"id": -1, "x": "가" * 300_000}]
    (tmp_path / "feed.json").write_text(json.dumps([*rows, 5, rows[1]], ensure_ascii=False))
    found = [row for _, row in read_rows(str(tmp_path / "feed.json"))]
    assert found[:301] == rows and isinstance(found[301], Reject) and found[302] == rows[1]


def test_equal_names_hide_nothing(tmp_path: Path) -> None:
    (tmp_path / "feed.csv").write_text("id,image,,image\n1,a.jpg,x,b.jpg\n")
    (tmp_path / "feed.jsonl").write_text('{"id": "1", "image": "a.jpg", "image": "b.jpg"}\n')
    assert list(read_rows(str(tmp_path / "feed.csv"))) == [
        ("feed.csv:2", {"id": "1", "image": "a.jpg", "Unnamed: 2": "x", "image.1": "b.jpg"})
    ]
    assert [row for _, row in read_rows(str(tmp_path / "feed.jsonl"))] == [
        {"id": "1", "image": "a.jpg", "image.1": "b.jpg"}
    ]


CELLS = st.text(st.sampled_from('ab,;"\n '), max_size=6)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6), st.sampled_from(",;"))
def test_whatever_the_csv_module_writes_is_read_as_it_was(rows: list[tuple[str, ...]], delimiter: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("x", "y", "z"), *rows])
    lines = enumerate(text.getvalue().splitlines(keepends=True), 1)
    assert [tuple(cells) for _, cells in records(iter(lines), delimiter)][1:] == rows


@given(st.integers(0, 5), st.sampled_from(['"', 'Bob"s', '"open', '27" wide"', '"a"b"']), st.booleans())
def test_a_quote_left_open_costs_its_own_line_at_most(at: int, title: str, quoted: bool) -> None:
    rows = [f'"r{n}","title, {n}",z' if quoted else f"r{n},title {n},z" for n in range(6)]
    rows[at] = f"r{at},{title},z"
    found = list(records(enumerate((f"{row}\n" for row in ["x,y,z", *rows]), 1), ","))
    assert [number for number, _ in found] == list(range(1, 8))
    for n, (_, cells) in enumerate(found[1:]):
        if n != at:
            assert cells == [f"r{n}", f"title, {n}" if quoted else f"title {n}", "z"]
        else:
            assert isinstance(cells, Broken | Unquoted) or cells[1] == title


def test_rows_beyond_a_stated_size_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoplens.datasets.importing.rows.TEXT_ROW", 1000)
    monkeypatch.setattr("shoplens.datasets.importing.rows.PARQUET_ROW", 1000)
    monkeypatch.setattr("shoplens.datasets.importing.xml_feed.ITEM_AT_MOST", 100_000)
    rows: list[dict[str, Any]] = [{"id": "1"}, {"id": "2", "title": "x" * 200_000}, {"id": "3"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.csv").write_text("id,title\n" + "\n".join(f"{row['id']},{row.get('title', '')}" for row in rows))
    pq.write_table(
        pa.Table.from_pylist([{"title": "", **row} for row in rows]), tmp_path / "c.parquet", row_group_size=1
    )
    pq.write_table(pa.Table.from_pylist([{"id": str(n), "title": "x" * 900} for n in range(9)]), tmp_path / "e.parquet")
    assert len([row for _, row in read_rows(str(tmp_path / "e.parquet")) if isinstance(row, dict)]) == 9
    items = "".join(f"<item><id>{row['id']}</id><title>{row.get('title', '')}</title></item>" for row in rows)
    (tmp_path / "d.xml").write_text(f"<rss>{items}</rss>")
    for name, kept in (("a.jsonl", ["1", "3"]), ("b.csv", ["1", "3"]), ("c.parquet", ["1", "3"]), ("d.xml", ["1"])):
        found = [row for _, row in read_rows(str(tmp_path / name))]
        assert [row["id"] for row in found if isinstance(row, dict)] == kept, name
        assert [row.reason for row in found if isinstance(row, Reject)] == ["malformed_row"], name


def test_xml_entities_are_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><rss><item><id>&b;</id></item></rss>'
    (tmp_path / "feed.xml").write_text(bomb)
    [(_, row)] = read_rows(str(tmp_path / "feed.xml"))
    assert isinstance(row, Reject) and "Entit" in row.detail
