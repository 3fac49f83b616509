from __future__ import annotations

import numpy as np

from shoplens.evaluation.results import Evaluation
from shoplens.evaluation.table import table


def test_each_metric_is_a_line_and_a_leak_stands_below() -> None:
    leaks = {
        "with": ["train"],
        "catalogs": 2,
        "of": 12,
        "products": 3,
        "left_out": True,
        "by_photo": False,
        "near_duplicates": 0,
        "same_words": 0,
    }
    name = "attributes_with_category/fused/macro_f1"
    outcomes = {name: np.array([1.0, 0.0]), "lonely/accuracy": np.ones(1)}
    groups = {name: np.arange(2), "lonely/accuracy": np.zeros(1)}
    evaluation = Evaluation.of(outcomes, groups, chance={name: 0.25}, about={"leaks": leaks})
    header, first, second, leak = table(evaluation).splitlines()
    assert header.split() == ["metric", "value", "95", "%", "interval", "chance", "queries"]
    assert first.split() == [name, "0.500", "0.000", "to", "1.000", "0.250", "2"]
    assert second.split() == ["lonely/accuracy", "1.000", "1"], "one query has no interval"
    assert len(header) == len(first) == len(second) and leak.startswith("LEAK: 2 of 12 catalogs")
