"""Items of an XML feed of products: RSS and Atom as Google Merchant takes them, and lists of `product` or `offer`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from shoplens.datasets.importing.source import Reject

ITEMS = ("item", "entry", "product", "offer")
ITEM_AT_MOST = 16 * 2**20
"""Bytes of one item."""


class _TooLong(Exception):
    """An item goes on for more than `ITEM_AT_MOST` bytes."""


class _Bounded:
    """A file that refuses to be read too far beyond the last item."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.since_item = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.since_item += len(data)
        if self.since_item > ITEM_AT_MOST:
            raise _TooLong(f"an item has more than {ITEM_AT_MOST:,} bytes")
        return data


def items_of(file: IO[bytes], name: str) -> Iterator[tuple[str, dict[str, Any] | Reject]]:
    """The fields of each item by the name of their tag, without namespace. A tag that repeats gives a list.

    A tag that holds one kind of tag gives a list too; one that holds several, such as `shipping`, is left out. Entities and external references are refused. The rest of a
    feed that is not well-formed XML is one Reject.
    """
    bounded = _Bounded(file)
    open_tags: list[Element] = []
    inside, number = 0, 0
    try:
        for event, element in iterparse(bounded, events=("start", "end"), forbid_dtd=False):
            is_item = _local(element) in ITEMS
            if event == "start":
                open_tags.append(element)
                inside += is_item
                continue
            open_tags.pop()
            inside -= is_item
            if inside:
                continue
            if is_item:
                number += 1
                yield f"{name}:{number}", _fields(element)
                bounded.since_item = 0
            if open_tags:
                open_tags[-1].remove(element)
    except (ParseError, DefusedXmlException, _TooLong, ValueError) as error:
        where = f"{name}:{number + 1}"
        detail = (
            f"the feed is not XML that can be read from here on ({error!r}), so its rest is left out: create it again"
        )
        yield where, Reject("malformed_row", detail, where)


def _fields(item: Element) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for child in item:
        if len({_local(part) for part in child}) > 1:
            continue
        texts = [text for part in (child if len(child) else [child]) if (text := (part.text or "").strip())]
        if texts:
            fields.setdefault(_local(child), []).extend(texts)
    return {key: texts[0] if len(texts) == 1 else texts for key, texts in fields.items()}


def _local(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]
