from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from shoplens.errors import ShoplensError
from shoplens.evaluation import ranking
from shoplens.evaluation.categories import zero_shot_category
from shoplens.evaluation.embedded import EmbeddedSplit
from shoplens.evaluation.matching import matching
from shoplens.evaluation.metrics import TIE
from shoplens.evaluation.ranking import nearest, rank
from shoplens.evaluation.tasks import evaluate_retrieval, image_to_text, retrieval_tasks, text_to_image, variants
from tests.evaluation.splits import random_split, unit

splits = st.builds(
    random_split,
    seed=st.integers(0, 10_000),
    n_products=st.integers(1, 12),
    n_photos=st.integers(1, 25),
    n_catalogs=st.integers(1, 8),
)


def _catalogs(split: EmbeddedSplit) -> list[object]:
    return [int(c) if c >= 0 else f"own {i}" for i, c in enumerate(split.catalog)]


def _order(scores: np.ndarray, right: list[bool]) -> list[bool]:
    """Right and wrong in ranking order, wrong first at equal score."""
    return [r for _, r in sorted(zip(np.round(-scores.astype(np.float64), 6), right, strict=True))]


def _brute(asks: list[tuple[np.ndarray, list[tuple[np.ndarray, bool]]]]) -> list[list[bool]]:
    return [
        _order(np.array([v @ q for v, _ in gallery]), [r for _, r in gallery])
        for q, gallery in asks
        if any(r for _, r in gallery)
    ]


def _recall(orders: list[list[bool]], k: int) -> list[float]:
    return [float(any(order[:k])) for order in orders]


def _mean_ap(orders: list[list[bool]]) -> list[float]:
    return [average_precision_score(order, -np.arange(len(order))) for order in orders]


@settings(max_examples=60, deadline=None)
@given(split=splits)
def test_retrieval_between_photos_and_texts_is_that_of_a_plain_loop(split: EmbeddedSplit) -> None:
    catalogs = _catalogs(split)
    distinct = {text: split.text_vectors[i] for i, text in reversed(list(enumerate(split.texts)))}
    bearers = {text: {c for c, t in zip(catalogs, split.texts, strict=True) if t == text} for text in split.texts}
    photos = [(split.images[i], catalogs[p]) for i, p in enumerate(split.product)]
    to_text = _brute([(v, [(distinct[t], c in bearers[t]) for t in distinct]) for v, c in photos])
    ranks = rank(image_to_text(split))
    for k in (1, 5):
        assert (ranks.first < k).tolist() == [bool(hit) for hit in _recall(to_text, k)]
    in_order = list(dict.fromkeys(split.texts))
    to_image = _brute([(distinct[t], [(v, c in bearers[t]) for v, c in photos]) for t in in_order])
    task = text_to_image(split)
    ranks = rank(task)
    for k in (1, 5):
        assert (ranks.first < k).tolist() == [bool(hit) for hit in _recall(to_image, k)]
    assert len(task) + task.n_without_answer == len(distinct)
    assert [split.texts[row] for row in task.query_row] == [
        t for t in in_order if any(c in bearers[t] for _, c in photos)
    ]


@settings(max_examples=60, deadline=None)
@given(split=splits, modality=st.sampled_from(["image", "text", "fused"]))
def test_matching_is_that_of_a_plain_loop(split: EmbeddedSplit, modality: str) -> None:
    catalogs = _catalogs(split)
    listings: dict[object, set[int]] = {}
    for p in split.product.tolist():
        listings.setdefault(catalogs[p], set()).add(p)
    asks = []
    if modality == "text":
        for i, v in enumerate(split.text_vectors):
            others = [j for j in range(len(catalogs)) if j != i]
            asks.append((v, [(split.text_vectors[j], catalogs[j] == catalogs[i]) for j in others]))
    else:
        vectors = split.images
        if modality == "fused":
            vectors = unit(split.images.astype(np.float64) + split.text_vectors[split.product])
        for i, p in enumerate(split.product):
            several = len(listings[catalogs[p]]) > 1
            if modality == "fused" and not several:
                continue
            others = [j for j in range(len(vectors)) if (split.product[j] != p if several else j != i)]
            asks.append((vectors[i], [(vectors[j], catalogs[split.product[j]] == catalogs[p]) for j in others]))
    orders = _brute(asks)
    task = matching(split, modality)  # type: ignore[arg-type]
    ranks = rank(task)
    assert (ranks.first < 1).tolist() == [bool(hit) for hit in _recall(orders, 1)]
    np.testing.assert_allclose(ranks.average_precision, _mean_ap(orders), atol=1e-12)
    assert ranks.n_gallery.tolist() == [len(order) for order in orders]
    assert ranks.n_right.tolist() == [sum(order) for order in orders]


@settings(max_examples=60, deadline=None)
@given(split=splits)
def test_variants_are_those_of_a_plain_loop(split: EmbeddedSplit) -> None:
    catalogs, outcomes = _catalogs(split), []
    for photo, product in enumerate(split.product):
        texts = {split.texts[p]: split.text_vectors[p] for p, c in enumerate(catalogs) if c == catalogs[product]}
        if len(texts) < 2:
            continue
        own = split.images[photo] @ texts[split.texts[product]]
        others = [split.images[photo] @ vector for text, vector in texts.items() if text != split.texts[product]]
        outcomes.append(float(own - TIE > max(others)))
    task = variants(split)
    assert task.n_without_answer == len(split.images) - len(outcomes)
    if outcomes:
        np.testing.assert_array_equal(rank(task).first == 0, outcomes)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    split = random_split(3, 40, 200, 15)
    whole = {name: rank(task) for name, task in retrieval_tasks(split).items()}
    zero_shot = zero_shot_category(split).outcomes
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", 1000)
    monkeypatch.setattr("shoplens.evaluation.categories.SCORES_AT_ONCE", 40)
    for name, task in retrieval_tasks(split).items():
        np.testing.assert_array_equal(rank(task).first, whole[name].first)
        np.testing.assert_array_equal(rank(task).average_precision, whole[name].average_precision)
    for name, values in zero_shot_category(split).outcomes.items():
        np.testing.assert_array_equal(values, zero_shot[name])


def test_zero_shot_by_hand() -> None:
    """Candidates a>b>c, a>b>d, a>e>f, g>h on the four axes; each photo leans to one of them."""
    axes = np.eye(4, dtype=np.float32)
    split = EmbeddedSplit(
        images=unit(axes[[0, 1, 2, 3, 0]] + 0.1),
        samples=np.arange(5),
        product=np.arange(5),
        texts=list("vwxyz"),
        text_vectors=axes[[0, 0, 0, 0, 0]],
        catalog=np.arange(5),
        category=np.array([0, 0, 0, 3, -1]),
        category_vectors=axes,
        category_paths=[("a", "b", "c"), ("a", "b", "d"), ("a", "e", "f"), ("g", "h")],
    )
    result = zero_shot_category(split)
    assert result.outcomes["zero_shot_category/accuracy"].tolist() == [1, 0, 0, 1]
    assert result.outcomes["zero_shot_category/accuracy@level1"].tolist() == [1, 1, 1, 1]
    assert result.outcomes["zero_shot_category/accuracy@level2"].tolist() == [1, 1, 0, 1]
    assert result.chance["zero_shot_category/accuracy"] == 1 / 4
    assert result.chance["zero_shot_category/accuracy@level1"] == pytest.approx((3 * 3 / 4 + 1 / 4) / 4)
    assert result.by_category == [
        {"category": ["a", "b", "c"], "n": 3, "accuracy": pytest.approx(1 / 3)},
        {"category": ["g", "h"], "n": 1, "accuracy": 1.0},
    ]
    assert result.n_without_category == 1


@pytest.mark.parametrize("collapse", [False, True])
def test_random_vectors_reach_chance_and_collapsed_ones_nothing(collapse: bool) -> None:
    rng = np.random.default_rng(0)
    n_products, each = 150, 3
    split = EmbeddedSplit(
        images=unit(rng.normal(size=(n_products * each, 16))),
        samples=np.arange(n_products * each),
        product=np.repeat(np.arange(n_products), each),
        texts=[f"product {i}" for i in range(n_products)],
        text_vectors=unit(rng.normal(size=(n_products, 16))),
        catalog=np.arange(n_products) // 3,
        category=rng.integers(5, size=n_products),
        category_vectors=unit(rng.normal(size=(5, 16))),
    )
    if collapse:
        one = unit(np.ones((1, 16)))
        split = EmbeddedSplit(
            **{
                **vars(split),
                "images": np.repeat(one, len(split.images), 0),
                "text_vectors": np.repeat(one, n_products, 0),
                "category_vectors": np.repeat(one, 5, 0),
            }
        )
    evaluation = evaluate_retrieval(split, seed=1, about={"model": "none"})
    matched = ("recall@1", "recall@5", "recall@10", "map", "map@r", "hard_recall@1", "pair_ap", "hard_pair_ap")
    assert set(evaluation.metrics) == {
        *(f"{way}/recall@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)),
        *(f"matching/{m}/{metric}" for m in ("image", "text", "fused") for metric in matched),
        "variants/recall@1",
        "zero_shot_category/accuracy",
    }
    for name, metric in evaluation.metrics.items():
        assert metric.chance is not None
        if collapse:
            assert metric.value <= metric.chance
            assert metric.value == 0 or name.endswith("ap")
        else:
            assert metric.value == pytest.approx(metric.chance, abs=0.5 * metric.chance + 0.03), name
    assert evaluation.about["counts"] == {
        "photos": 450, "products": 150, "catalogs": 50, "texts": 150, "categories": 5,
    }  # fmt: skip
    assert evaluation.about["model"] == "none"


def test_one_listing_a_catalog_has_no_text_or_fused_matching() -> None:
    split = random_split(0, 5, 20, 3)
    split = EmbeddedSplit(**{**vars(split), "catalog": np.arange(5), "category": None, "category_vectors": None})
    evaluation = evaluate_retrieval(split)
    assert {name.split("/")[1] for name in evaluation.metrics if name.startswith("matching/")} == {"image"}
    assert not any(name.startswith("zero_shot") for name in evaluation.metrics)


def test_nearest_shows_what_rank_judged() -> None:
    split = random_split(5, 30, 120, 12)
    for task in retrieval_tasks(split).values():
        ranks = rank(task)
        chosen = np.arange(0, len(task), 7)
        for answers in nearest(task, chosen, 5):
            assert answers.best_right_rank == ranks.first[answers.query] + 1
            assert bool(answers.right[0]) == (ranks.first[answers.query] == 0)
            assert np.all(np.diff(answers.scores) <= 1e-6)
            assert task.right[task.query_key[answers.query], answers.best_right]


@pytest.mark.parametrize("name", ["images", "text_vectors", "category_vectors"])
def test_vectors_that_are_not_finite_are_refused(name: str) -> None:
    split = random_split(0, 5, 9, 3)
    spoiled = np.array(getattr(split, name))
    spoiled[1, 2] = np.nan
    with pytest.raises(ShoplensError, match="not finite"):
        EmbeddedSplit(**{**vars(split), name: spoiled})


def test_an_empty_split_is_refused() -> None:
    split = random_split(0, 5, 9, 3)
    with pytest.raises(ShoplensError, match="no photo"):
        EmbeddedSplit(**{**vars(split), "images": split.images[:0], "samples": [], "product": split.product[:0]})
