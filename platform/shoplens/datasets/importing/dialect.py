"""How a table is written: its kind, encoding, delimiter and decimal separator, found in the file itself."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Literal, cast

import fsspec
from charset_normalizer import from_bytes

from shoplens.datasets.importing.prices import Separator
from shoplens.errors import ShoplensError

Kind = Literal["jsonl", "csv", "parquet", "xml"]
_HEAD = 1 << 18
_DELIMITERS = ("\t", ";", ",", "|")
_DELIMITER_NAMES = {"\t": "tabs", ";": "semicolons", "|": "vertical bars", ",": "commas"}
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"%PDF": "a PDF",
}
_ENOUGH = 8
"""So many characters in valid UTF-8 before the first mistake make a file of UTF-8 with a mistake in it."""
_OTHERS = ["cp1252", "cp1251", "shift_jis", "gb18030", "big5", "cp949"]
_SEPARATOR_LINE = re.compile(r"sep=(.)\s*", re.IGNORECASE)
_PRICE_COLUMN = re.compile(r"price|preis|prix|precio|prezzo|prijs|cost|amount|가격|판매가|정가", re.IGNORECASE)
_WITH_COMMA = re.compile(r"[^\d]*\d[\d. ]*,\d{1,2}[^\d]*")
_WITH_POINT = re.compile(r"[^\d]*\d[\d, ]*\.\d{1,2}[^\d]*")


@dataclass(frozen=True)
class Dialect:
    """`told` are sentences about everything that is not UTF-8 with commas and decimal points, or not what was asked.

    errors    how bytes that are not of the encoding are decoded
    decimal   the separator of decimals in the prices of a CSV table; None if they do not show it
    skip      lines before the header
    """

    kind: Kind
    encoding: str = "utf-8"
    errors: str = "strict"
    delimiter: str = ","
    decimal: Separator | None = None
    skip: int = 0
    told: tuple[str, ...] = ()


def open_table(path: str) -> IO[bytes]:
    """The table as a binary stream, unzipped if its first bytes are those of gzip.

    Raises ShoplensError if it cannot be opened.
    """
    try:
        file = fsspec.open(path, "rb").open()
        magic = file.read(2)
        file.seek(0)
    except OSError as error:
        raise ShoplensError(f"{path} cannot be read ({error.strerror or error}): check the path") from error
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file) if magic == b"\x1f\x8b" else file)


def dialect_of(path: str, asked: str | None = None) -> Dialect:
    """Finds the dialect of a table. Its content decides; `asked` and then the suffix where the content does not say.

    asked   the kind that the user named: `jsonl`, `csv`, `parquet` or `xml`

    Raises ShoplensError if the file is no table, or cannot be opened.
    """
    with open_table(path) as file:
        head = file.read(_HEAD)
        if head.startswith(b"PAR1"):
            return Dialect("parquet", told=_unasked("parquet", asked))
        for magic, what in _FOREIGN.items():
            if head.startswith(magic):
                raise ShoplensError(f"{path} is {what}: save the table as CSV, JSON lines or Parquet, and import that")
        encoding, errors = _encoding(head, file)
    text = head.decode(encoding, "replace").lstrip("\ufeff")
    if "\0" in text[:1000]:
        raise ShoplensError(f"{path} is not a table but binary data: give a CSV, JSON lines, XML or Parquet file")
    kind = _kind(text, path, asked)
    if kind == "parquet":
        raise ShoplensError(
            f"{path} is not Parquet, or it is damaged: name its kind (csv, jsonl, xml), or create it again"
        )
    told = list(_unasked(kind, asked))
    if encoding not in ("utf-8", "utf-8-sig") and kind != "xml":
        told.append(f"encoding: {encoding}")
    if errors != "strict":
        told.append("encoding: UTF-8 with bytes that are not UTF-8; texts with such bytes are left out")
    if kind != "csv":
        return Dialect(kind, encoding, errors, told=tuple(told))
    lines = text.splitlines()[:-1] if len(head) == _HEAD else text.splitlines()
    skip = next((n for n, line in enumerate(lines) if line.strip()), 0)
    named = _SEPARATOR_LINE.fullmatch(lines[skip]) if lines else None
    delimiter = named[1] if named else _delimiter(lines[skip] if lines else "")
    skip += bool(named)
    decimal = _decimal(lines[skip:], delimiter)
    if delimiter != ",":
        told.append(f"cells are separated by {_DELIMITER_NAMES.get(delimiter, delimiter)}")
    if decimal == ",":
        told.append("prices have a decimal comma")
    return Dialect(kind, encoding, errors, delimiter, decimal, skip, tuple(told))


def _unasked(found: Kind, asked: str | None) -> tuple[str, ...]:
    if asked is None or asked == found:
        return ()
    return (f"{asked} was asked for, and the file is {found.upper()}: it is read as that",)


def _kind(text: str, path: str, asked: str | None) -> Kind:
    start = text.lstrip()[:1]
    if start in ("{", "["):
        return "jsonl"
    if start == "<":
        return "xml"
    suffix = path.lower().removesuffix(".gz").rpartition(".")[2]
    if suffix in ("csv", "tsv", "tab") or asked == "csv":
        return "csv"
    if asked in ("jsonl", "parquet") or suffix == "parquet":
        return cast(Kind, asked or suffix)
    return "jsonl" if suffix in ("json", "jsonl", "ndjson") else "csv"


def _encoding(head: bytes, rest: IO[bytes]) -> tuple[str, str]:
    """(encoding, what to do with bytes that are not of it). The whole file is looked through, up to the first doubt."""
    for bom, encoding in _BOMS.items():
        if head.startswith(bom):
            return encoding, "strict"
    sample = head[:4096]
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if (
            len(sample) > 3
            and sample[start::2].count(0) > 0.3 * len(sample) / 2
            and not sample[1 - start :: 2].count(0)
        ):
            return encoding, "strict"
    decoder, characters, block = codecs.getincrementaldecoder("utf-8")(), 0, head
    while True:
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(errors="ignore")
            if characters + _not_ascii(before) >= _ENOUGH:
                return "utf-8", "surrogateescape"
            return _legacy(error.object[error.start :]), "replace"
        characters += _not_ascii(text) if characters < _ENOUGH else 0
        if not block:
            return "utf-8", "strict"
        block = rest.read(1 << 20)


def _not_ascii(text: str) -> int:
    return 0 if text.isascii() else len(re.findall(r"[^\x00-\x7f]", text))


def _legacy(data: bytes) -> str:
    """The encoding of bytes that are not UTF-8: cp949 where most letters become Hangul, else the likeliest other one."""
    data = data[:_HEAD]
    korean = data.decode("cp949", "ignore")
    foreign = [character for character in korean if character > "\x7f"]
    hangul = sum("가" <= character <= "힣" for character in foreign)
    if hangul > 0.5 * len(foreign) and korean.encode("cp949") == data[: len(korean.encode("cp949"))]:
        return "cp949"
    best = from_bytes(data[: 1 << 14], cp_isolation=_OTHERS).best()
    return best.encoding if best else "cp1252"


def _delimiter(header: str) -> str:
    outside = re.sub(r'"[^"]*"', "", header)
    counts = {delimiter: outside.count(delimiter) for delimiter in _DELIMITERS}
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return best if counts[best] else ","


def _decimal(lines: Sequence[str], delimiter: str) -> Separator | None:
    """The separator that prices show by one or two digits behind it; None if they show both or neither."""
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines[:2000])), delimiter=delimiter))
    except csv.Error:
        return None
    columns = [n for n, name in enumerate(rows[0] if rows else ()) if _PRICE_COLUMN.search(name)]
    cells = [row[n].strip() for row in rows[1:] for n in columns if n < len(row)]
    comma, point = (any(map(written.fullmatch, cells)) for written in (_WITH_COMMA, _WITH_POINT))
    return None if comma == point else "," if comma else "."
