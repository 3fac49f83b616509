"""Metrics of the content of lists against loops over single lists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.errors import ShoplensError
from shoplens.search.lists.contents import centrality_ratio, contents, gini
from tests.search.lists.random_lists import AT, Shop, listed, shops

NAMES = ("full", "duplicates", "itself", "duplicates_catalog", "itself_catalog", "leakage_leaf")
LISTS = np.array([[1, 2, -1], [0, -1, -1]])


@settings(max_examples=60, deadline=None)
@given(shop=shops())
def test_contents_of_lists(shop: Shop) -> None:
    found = contents(
        shop.lists,
        shop.n_items,
        seed_item=shop.seed_item,
        categories={"leaf": shop.category},
        products={"catalog": shop.product},
        at=AT,
        most=[2],
    )
    for k in AT:
        expected: dict[str, list[float]] = {name: [] for name in NAMES}
        for row, seed in zip(shop.lists, shop.seed_item, strict=True):
            first = listed(row)[:k]
            expected["full"].append(float(len(first) == k))
            products = [int(shop.product[item]) for item in first]
            wanted = shop.category[seed]
            known = [shop.category[item] for item in first if shop.category[item] >= 0 and wanted >= 0]
            if first:
                for name, held, own in (("", first, int(seed)), ("_catalog", products, int(shop.product[seed]))):
                    repeats = sum(one in held[:i] for i, one in enumerate(held))
                    expected[f"duplicates{name}"].append(repeats / len(first))
                    expected[f"itself{name}"].append(held.count(own) / len(first))
            if known:
                expected["leakage_leaf"].append(sum(one != wanted for one in known) / len(known))
        for name, values in expected.items():
            np.testing.assert_allclose(found.outcomes[f"lists/{name}@{k}"], values, err_msg=name)
        counts = [sum(listed(row)[:k].count(item) for row in shop.lists) for item in range(shop.n_items)]
        assert found.statistics[f"catalog/coverage@{k}"].value == pytest.approx(np.mean(np.array(counts) > 0))
        if sum(counts) and shop.n_items >= 2:
            top = sum(sorted(counts)[-2:]) / sum(counts)
            assert found.statistics[f"catalog/centrality@{k}_top2"].value == pytest.approx(top)
            assert found.about["centrality"][f"centrality@{k}_top2"] == {
                "k": 2, "K": k, "seeds": len(shop.lists), "places": sum(counts), "catalog": shop.n_items,
                "floor": 2 / shop.n_items,
            }  # fmt: skip


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), k=st.integers(1, 12))
def test_centrality_and_gini_by_definition(counts: list[int], k: int) -> None:
    assert centrality_ratio(np.array(counts), k) == pytest.approx(sum(sorted(counts)[::-1][:k]) / sum(counts))
    assert centrality_ratio(np.array(counts), k) >= min(k / len(counts), 1) - 1e-12, "the floor"
    differences = np.abs(np.subtract.outer(counts, counts)).mean()
    assert gini(np.array(counts)) == pytest.approx(differences / (2 * np.mean(counts)))


def test_lists_without_an_item_say_nothing_of_the_catalog() -> None:
    empty = np.full((3, 4), -1)
    found = contents(empty, 5, at=[4])
    evaluation = found.evaluation()
    assert evaluation.metrics["lists/full@4"].value == 0
    assert evaluation.metrics["catalog/coverage@4"].value == 0
    assert not any("gini" in name or "duplicates" in name for name in evaluation.metrics)
    assert np.isnan(gini(np.zeros(3, int))) and np.isnan(centrality_ratio(np.zeros(3, int), 1))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: contents(np.array([[1, -1, 2]]), 5, at=[1]), "goes on after -1"),
        (lambda: contents(LISTS.astype(float), 5, at=[1]), "integer item codes"),
        (lambda: contents(LISTS, 5, categories={"leaf": np.zeros(5, int)}, at=[1]), "give seed_item"),
        (lambda: contents(LISTS, 5, products={"catalog": np.zeros(4, int)}, at=[1]), "5 codes are needed"),
        (lambda: contents(LISTS, 5, seed_item=np.array([0, 5]), at=[1]), "outside the 5"),
    ],
)
def test_what_is_wrong_is_said(wrong: Callable[[], object], said: str) -> None:
    with pytest.raises(ShoplensError, match=said):
        wrong()
