"""What a package knows of attributes: the prior against plain counting, the hint on held-out products, files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shoplens.errors import ShoplensError
from shoplens.evaluation.attributes import extract
from shoplens.evaluation.embedded import MODALITIES, EmbeddedSplit
from shoplens.evaluation.heads.extractor import Extractor, judge_hints
from shoplens.evaluation.heads.value_counts import STRENGTH, ValueCounts
from shoplens.schema import CategoryTree
from tests.evaluation.splits import PATHS, unit

TREE = CategoryTree.of((path, "/".join(path)) for path in [*PATHS, ("z",)])
VALUES = ("brown", "cream", "green")
OF_CATEGORY = np.array([[0.85, 0.1, 0.05], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9], [0.4, 0.3, 0.3]])
"""p(colour | category) of the four `PATHS`."""


def shop(seed: int, n: int, *, shows_category: bool) -> EmbeddedSplit:
    """Products whose colour depends on their category; vectors show the colour dimly, and the category or not.

    Only products of `a > b > c` have a sleeve, and all of them have two sizes.
    """
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    kind = rng.integers(4, size=n)
    colour = np.array([rng.choice(3, p=OF_CATEGORY[k]) for k in kind])
    sleeve = rng.integers(2, size=n)
    meaning = fixed.normal(size=(3, 16))[colour] + 0.6 * fixed.normal(size=(2, 16))[sleeve] * (kind == 0)[:, None]
    if shows_category:
        meaning = meaning + 2 * fixed.normal(size=(4, 16))[kind]
    return EmbeddedSplit(
        images=unit(meaning + 1.5 * rng.normal(size=(n, 16))),
        samples=np.arange(n),
        product=np.arange(n),
        texts=[str(i) for i in range(n)],
        text_vectors=unit(meaning + 1.5 * rng.normal(size=(n, 16))),
        catalog=np.arange(n),
        category=kind,
        category_vectors=np.eye(16, dtype=np.float32)[:4],
        category_paths=PATHS,
        attributes=[
            {"colour": (VALUES[c],), "sizes": ("S", "M")} | ({"sleeve": (("long", "short")[s],)} if k == 0 else {})
            for c, s, k in zip(colour, sleeve, kind, strict=True)
        ],
    )


def fitted(*, shows_category: bool, seed: int = 0) -> Extractor:
    train, development = (shop(seed + i, n, shows_category=shows_category) for i, n in ((1, 800), (2, 300)))
    extractor = Extractor.fit(train, development, TREE, {"dataset": "d", "splits": ["train", "val"]})
    assert extractor is not None
    return extractor


HIDDEN, SHOWN = fitted(shows_category=False), fitted(shows_category=True)


def loss_and_hits(extractor: Extractor, split: EmbeddedSplit, *, hint: bool) -> tuple[float, float, float]:
    """Mean log loss and accuracy of the colour, and the share right of the answers given."""
    losses, hits, answered = [], [], []
    for vector, (value,), path in zip(
        split.images, [given["colour"] for given in split.attributes], split.path_of_product, strict=True
    ):
        found = extractor.extract("image", vector, "colour", category="/".join(path) if hint else None)
        losses.append(-math.log(found.probabilities[found.values.index(value)]))
        hits.append(found.values[0] == value)
        answered.append(found.answered)
    return float(np.mean(losses)), float(np.mean(hits)), float(np.array(hits)[answered].mean())


def test_shares_are_counts_smoothed_by_the_category_above() -> None:
    attributes = [{"k": ("x",)}] * 6 + [{"k": ("y",)}] * 2 + [{"k": ("y", "x")}, {"other": ("x",)}, {"k": ("rare",)}]
    paths = [("a", "b", "c")] * 5 + [("a", "e", "f")] * 3 + [("g", "h"), ("g", "h"), ()]
    counts = ValueCounts.of(TREE, attributes, paths, {"k": ("x", "y")})
    whole = np.array([7 + 1, 3 + 1]) / 12
    a = (np.array([6, 2]) + STRENGTH * whole) / (8 + STRENGTH)
    b = (np.array([5, 0]) + STRENGTH * a) / (5 + STRENGTH)
    c = (np.array([5, 0]) + STRENGTH * b) / (5 + STRENGTH)
    np.testing.assert_allclose(counts.share("", "k", ("x", "y")), whole)
    np.testing.assert_allclose(counts.share("a/b/c", "k", ("x", "y")), c)
    np.testing.assert_allclose(counts.share("a/b/c", "k", ("y", "x")), c[::-1])
    np.testing.assert_allclose(counts.log_lift("a/b/c", "k", ("x", "y")), np.log(c / whole))
    np.testing.assert_allclose(counts.log_lift("z", "k", ("x", "y")), 0, atol=1e-12)
    assert counts.keys("a") == counts.keys("z") == {"k"}, "of z nothing is known but what the whole shop has"


def test_the_category_helps_where_the_vector_does_not_show_it() -> None:
    test = shop(9, 600, shows_category=False)
    (loss, hits, right), (hinted_loss, hinted_hits, hinted_right) = (
        loss_and_hits(HIDDEN, test, hint=hint) for hint in (False, True)
    )
    assert HIDDEN.hints["image"].weight == 1, "colour and category are independent given the vector: Bayes' rule"
    assert hinted_loss < loss - 0.1
    assert hinted_hits > hits + 0.05
    assert right == pytest.approx(0.9, abs=0.06) and hinted_right == pytest.approx(0.9, abs=0.06)


def test_judged_hints_are_those_that_are_served() -> None:
    test = shop(9, 400, shows_category=False)
    metrics = judge_hints(HIDDEN, test).evaluation().metrics
    given, right = [], []
    for key in HIDDEN.keys:
        for vector, attributes, path in zip(test.images, test.attributes, test.path_of_product, strict=True):
            if key in attributes:
                found = HIDDEN.extract("image", vector, key, category="/".join(path))
                given.append(found.answered)
                right.append(found.values[0] == attributes[key][0])
    assert metrics["attributes_with_category/image/coverage"].value == pytest.approx(np.mean(given))
    assert metrics["attributes_with_category/image/precision"].value == pytest.approx(np.mean(np.array(right)[given]))
    plain = extract(test, test, test, _encode, heads=HIDDEN.heads).evaluation().metrics
    assert metrics["attributes_with_category/image/macro_f1"].value > plain["attributes/image/macro_f1"].value
    assert plain["attributes/image/coverage"].n == len(given)
    assert not judge_hints(HIDDEN, replace(test, category=np.full(400, -1))).statistics


def _encode(texts: Sequence[str]) -> np.ndarray:
    return np.eye(16, dtype=np.float32)[: len(texts)]


def test_the_category_does_no_harm_where_the_vector_shows_it() -> None:
    test = shop(9, 600, shows_category=True)
    plain, hinted = (loss_and_hits(SHOWN, test, hint=hint) for hint in (False, True))
    assert SHOWN.hints["image"].weight < 1
    assert hinted[0] < plain[0] + 0.01
    full = replace(SHOWN, hints={**SHOWN.hints, "image": replace(SHOWN.hints["image"], weight=1.0)})
    assert loss_and_hits(full, test, hint=True)[0] > hinted[0], "counted in full, the category counts twice"


def test_a_hinted_probability_is_bayes_rule_over_the_heads() -> None:
    vector = shop(9, 5, shows_category=False).images[3]
    head = HIDDEN.heads["image"].heads["colour"]
    prior = HIDDEN.counts.share("a/b/d", "colour", VALUES) / HIDDEN.counts.share("", "colour", VALUES)
    posterior = head.predict_proba(vector[None])[0] * prior
    posterior /= posterior.sum()
    found = HIDDEN.extract("image", vector, "colour", category="a/b/d")
    assert found.probabilities == pytest.approx(np.sort(posterior)[::-1])
    assert found.values == tuple(VALUES[i] for i in np.argsort(-posterior))
    assert found.answered == (posterior.max() >= HIDDEN.hints["image"].thresholds["colour"])


def test_among_renormalises() -> None:
    vector = shop(9, 5, shows_category=False).images[0]
    everything = HIDDEN.extract("image", vector, "colour")
    found = HIDDEN.extract("image", vector, "colour", among=["green", "brown"])
    assert sorted(found.values) == ["brown", "green"] and found.probabilities.sum() == pytest.approx(1)
    of = dict(zip(everything.values, everything.probabilities, strict=True))
    assert found.probabilities[0] / found.probabilities[1] == pytest.approx(of[found.values[0]] / of[found.values[1]])


def test_keys_that_a_product_cannot_have_are_left_out() -> None:
    assert SHOWN.keys == ["colour", "sleeve"]
    vector = np.zeros(16, np.float32)
    assert SHOWN.relevant("image", vector, "a/b/c") == SHOWN.relevant("image", vector, "a") == ["colour", "sleeve"]
    assert SHOWN.relevant("image", vector, "g/h") == ["colour"]
    test = shop(9, 300, shows_category=True)
    guessed = [SHOWN.guess_category("image", vector) for vector in test.images]
    hits = [category == "/".join(path) for (category, _), path in zip(guessed, test.path_of_product, strict=True)]
    assert np.mean(hits) > 0.7 and np.mean([p for _, p in guessed]) == pytest.approx(np.mean(hits), abs=0.06)
    said = ["sleeve" in SHOWN.relevant("image", vector, None) for vector in test.images]
    has = ["sleeve" in given for given in test.attributes]
    assert np.mean(np.array(said) == has) > 0.85
    without = replace(SHOWN, category={})
    assert without.relevant("image", vector, None) == SHOWN.keys and without.guess_category("image", vector) is None


def test_files_hold_all_of_it(tmp_path: Path) -> None:
    assert Extractor.load(tmp_path) is None
    SHOWN.save(tmp_path)
    names = {
        f"{place}{m}.{kind}" for place in ("", "category/") for m in MODALITIES for kind in ("json", "safetensors")
    }
    folder = tmp_path / "attributes"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {*names, "categories.json"}
    loaded = Extractor.load(tmp_path)
    assert loaded is not None and loaded.learnt_from == SHOWN.learnt_from and loaded.hints == SHOWN.hints
    for vector in shop(9, 20, shows_category=True).images:
        for modality in MODALITIES:
            guess = SHOWN.guess_category(modality, vector)
            assert guess is not None
            assert loaded.guess_category(modality, vector) == (guess[0], pytest.approx(guess[1]))
            for category in (None, "a", "g/h"):
                assert loaded.relevant(modality, vector, category) == SHOWN.relevant(modality, vector, category)
                ours, theirs = (one.extract(modality, vector, "sleeve", category=category) for one in (SHOWN, loaded))
                assert (ours.values, ours.answered) == (theirs.values, theirs.answered)
                np.testing.assert_allclose(ours.probabilities, theirs.probabilities, rtol=1e-6)
    told = json.loads((folder / "categories.json").read_text())
    assert [row["path"] for row in told["categories"]] == [[], *(list(node.path) for node in TREE)]
    del told["hints"]
    (folder / "categories.json").write_text(json.dumps(told))
    with pytest.raises(ShoplensError, match=r"categories\.json is damaged"):
        Extractor.load(tmp_path)


def test_products_without_category_have_no_hint_and_no_guess() -> None:
    train, development = (replace(shop(i, 400, shows_category=True), category=np.full(400, -1)) for i in (1, 2))
    extractor = Extractor.fit(train, development, CategoryTree(), {})
    assert extractor is not None
    assert extractor.category == {} and extractor.hints["text"].weight == 0
    thresholds = {key: head.threshold for key, head in extractor.heads["text"].heads.items()}
    assert extractor.hints["text"].thresholds == thresholds
    assert Extractor.fit(replace(train, attributes=[{}] * 400), development, TREE, {}) is None
