from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from shoplens.evaluation.results import Evaluation
from shoplens.search.lists.report import Advice, Card, Example, differences, render, sentence

HOSTILE = '</figcaption><script>alert(1)</script><img src="http://evil/x" onerror=alert(1)> "\' 콩두부'
ABOUT = {
    "model": HOSTILE,
    "dataset": "shop",
    "k": 2,
    "snapshot": "abc",
    "spread": [0.0, 0.7, 1.0],
    "seeds": {"seeds": 4, "of": 5, "not_in_index": 1},
}
ROWS = np.arange(4)


def evaluation(full: list[float], repeats: list[float], rows: np.ndarray = ROWS, **about: object) -> Evaluation:
    outcomes = {
        "lists/full@2": np.array(full),
        "lists/duplicates_product@2": np.array(repeats),
        "lists/violations@2": np.zeros(len(repeats)),
        "lists/ring_0@2": np.full(len(repeats), 0.75),
        "lists/ring_1@2": np.full(len(repeats), 0.25),
        "lists/latency_ms_p50": np.ones(1),
        "lists/latency_ms_p99": np.ones(1),
        "lists/index_bytes_per_item": np.full(1, 512.0),
        "lists/catalog/coverage@2": np.ones(1),
    }
    groups = {name: rows if len(values) > 1 else np.zeros(1, int) for name, values in outcomes.items()}
    groups["lists/full@2"] = ROWS
    errors = {"lists/duplicates_product@2", "lists/violations@2"}
    return Evaluation.of(outcomes, groups, lower_is_better=errors, about={**ABOUT, **about})


def test_the_sentence_says_what_matters() -> None:
    said = sentence(evaluation([1, 1, 1, 0], [0.0, 0.5, 0.0, 0.0]))
    assert said.startswith(HOSTILE)
    assert "75.0 % of 4 seeds get 2, no rule is broken, 12.5 % repeat a product" in said


def test_differences_are_paired_on_the_seeds_that_both_have() -> None:
    ours = evaluation([1, 1, 1, 1], [0.5, 0.0, 0.5], np.array([0, 1, 3]))
    theirs = evaluation([0, 0, 0, 0], [0.0, 0.0, 1.0], np.array([1, 2, 0]))
    found = {one.name: one for one in differences(ours, theirs)}
    assert not any("latency" in name or "bytes" in name for name in found)
    assert found["lists/full@2"].value == pytest.approx(1)
    assert found["lists/full@2"].better is True
    assert found["lists/duplicates_product@2"].value == pytest.approx(((0.5 - 1.0) + (0.0 - 0.0)) / 2)
    assert found["lists/ring_0@2"].value == 0 and found["lists/ring_0@2"].better is None
    worse = {one.name: one.better for one in differences(theirs, ours)}
    assert worse["lists/full@2"] is False


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_is_whole_and_runs_nothing() -> None:
    card = Card(HOSTILE, "data:image/jpeg;base64,AA==", 12000.0, 1, ("in_stock", "cheapest"), 0.5, repeats=True)
    lists = {"eclip/1": [card, card], HOSTILE: [Card(HOSTILE, None, None, 0, (), 0.25)]}
    example = Example(Card(HOSTILE, None, None), lists, 2)
    ours, theirs = evaluation([1, 1, 1, 0], [0.0] * 4, against=HOSTILE), evaluation([0, 1, 1, 0], [0.1] * 4)
    page = render(ours, Advice(HOSTILE, HOSTILE), [example], differences(ours, theirs))
    reader = Reader()
    reader.feed(page)
    assert "script" not in reader.tags
    assert all(source.startswith("data:image/jpeg") for source in reader.sources)
    assert "default-src 'none'" in page
    assert page.count("ring 1") >= 3 and ">cheapest<" in page and "repeats a product" in page
    assert "0.0,200.0 100.0,60.0 200.0,0.0" in page, "the curve, from the lower left"
    assert not re.search(r">\s*nan", page)
    plain = render(evaluation([1, 1, 1, 1], [0.0] * 4), Advice("next", "command"))
    assert "Example lists" not in plain and "Against" not in plain and "Clicks" not in plain
