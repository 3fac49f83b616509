"""Attributes, categories and restricted products, on splits whose vectors hold what is asked of them, or nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from shoplens.evaluation.attributes import extract
from shoplens.evaluation.categories import _wrong_ahead, classify, tree_distance
from shoplens.evaluation.embedded import EmbeddedSplit
from shoplens.evaluation.heads.answers import macro_f1
from shoplens.evaluation.heads.probes import LinearHead
from shoplens.evaluation.heads.vocabulary import fit_heads, single_values, vocabularies
from shoplens.evaluation.restricted import recognise, weighted_average_precision
from shoplens.statistics.calibration import threshold_at_precision
from tests.evaluation.splits import PATHS, labelled_split, unit

TRAIN, DEVELOPMENT, TEST = (labelled_split(seed, n) for seed, n in ((1, 600), (2, 200), (3, 200)))


def _noise(split: EmbeddedSplit, seed: int = 0) -> EmbeddedSplit:
    rng = np.random.default_rng(seed)
    return replace(
        split,
        images=unit(rng.normal(size=split.images.shape)),
        text_vectors=unit(rng.normal(size=split.text_vectors.shape)),
    )


def _encode(texts: object) -> np.ndarray:
    return unit(np.random.default_rng(5).normal(size=(len(texts), 16)))  # type: ignore[arg-type]


def test_vocabularies_hold_common_values_of_keys_with_one_value() -> None:
    counts = Counter(value for value in single_values(TRAIN, "colour") if value)
    known = vocabularies(TRAIN.attributes)
    assert set(known) == {"colour"}, "of `sizes` every product has two"
    assert known["colour"].values == ("blue", "green", "mauve", "red") and known["colour"].rare == 0
    fewer = vocabularies(TRAIN.attributes, min_products=counts["mauve"] + 1)["colour"]
    assert fewer.values == ("blue", "green", "red") and fewer.rare == counts["mauve"]
    assert not vocabularies(TRAIN.attributes, min_products=1000)
    assert not vocabularies(())


def test_heads_find_what_is_there_and_prompts_of_nothing_do_not() -> None:
    evaluation = extract(TRAIN, DEVELOPMENT, TEST, _encode).evaluation()
    metrics = evaluation.metrics
    for modality in ("image", "text", "fused"):
        task = f"attributes/{modality}"
        assert metrics[f"{task}/macro_f1"].value > 0.75
        assert metrics[f"{task}/macro_f1"].value == metrics[f"{task}/macro_f1:colour"].value, "there is one key"
        assert metrics[f"{task}/macro_f1"].low > metrics[f"{task}/macro_f1"].chance  # type: ignore[operator]
        assert metrics[f"{task}/precision"].value == pytest.approx(0.93, abs=0.07)
        assert 0.5 < metrics[f"{task}/coverage"].value <= 1
        assert metrics[f"{task}/ece"].value < 0.1 and metrics[f"{task}/ece"].lower_is_better
        assert metrics[f"attributes_zero_shot/{modality}/macro_f1"].value < 0.6
    told = evaluation.about["attributes"]["colour"]
    assert told["judged"] == sum(value is not None for value in single_values(TEST, "colour"))
    assert metrics["attributes/text/coverage"].n == told["judged"]
    assert metrics["attributes/image/coverage"].n == 2 * told["judged"], "two photos each"


def test_coverage_and_precision_are_those_of_the_heads_answers() -> None:
    metrics = extract(TRAIN, DEVELOPMENT, TEST, _encode).evaluation().metrics
    heads = fit_heads(TRAIN, DEVELOPMENT, vocabularies(TRAIN.attributes))
    answers, values = heads["image"].answer(TEST.images)["colour"], single_values(TEST, "colour")
    told = [
        (gave, heads["image"].heads["colour"].values[code] == values[row])
        for code, gave, row in zip(answers.code, answers.answered, TEST.product, strict=True)
        if values[row] is not None
    ]
    given = [right for gave, right in told if gave]
    assert 0 < len(given) < len(told)
    assert metrics["attributes/image/coverage"].value == pytest.approx(len(given) / len(told))
    assert metrics["attributes/image/precision"].value == pytest.approx(np.mean(given))


def test_one_vector_for_every_prompt_is_never_right() -> None:
    found = classify(TRAIN, DEVELOPMENT, TEST, lambda texts: np.repeat(TEST.text_vectors[:1], len(texts), axis=0))
    for modality in ("image", "text", "fused"):
        assert not found.outcomes[f"category_zero_shot/{modality}/top1"].any()
        assert (found.outcomes[f"category_zero_shot/{modality}/tree_distance"] > 0).all()


def test_heads_of_noise_are_at_chance_and_abstain() -> None:
    metrics = extract(_noise(TRAIN, 1), _noise(DEVELOPMENT, 2), _noise(TEST, 3), _encode).evaluation().metrics
    for modality in ("image", "text", "fused"):
        assert metrics[f"attributes/{modality}/macro_f1"].value < 0.4
        assert metrics[f"attributes/{modality}/coverage"].value < 0.05


def test_a_value_that_is_not_in_the_vocabulary_is_judged_as_wrong() -> None:
    strange = replace(TEST, attributes=[{"colour": ("ultraviolet",)}, *TEST.attributes[1:]])
    before, after = (
        extract(TRAIN, DEVELOPMENT, one, _encode).evaluation().metrics["attributes/text/coverage"].n
        for one in (replace(TEST, attributes=[{}, *TEST.attributes[1:]]), strange)
    )
    assert after == before + 1
    told = extract(TRAIN, DEVELOPMENT, strange, _encode).about["attributes"]["colour"]
    assert told["unknown_value"] == 1


def test_without_common_attributes_nothing_is_found() -> None:
    assert not extract(replace(TRAIN, attributes=()), DEVELOPMENT, TEST, _encode).statistics
    assert not extract(TRAIN, DEVELOPMENT, replace(TEST, attributes=[{}] * 200), _encode).statistics


def test_heads_without_development_rows_still_answer() -> None:
    bare = replace(DEVELOPMENT, attributes=[{}] * 200)
    heads = fit_heads(TRAIN, bare, vocabularies(TRAIN.attributes))
    assert heads["text"].answer(TEST.text_vectors)["colour"].answered.all()


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=30))
def test_macro_f1_is_sklearns_over_the_values_that_occur(rows: list[tuple[int, int, int]]) -> None:
    truth, said, unit_group = (np.array(part) for part in zip(*rows, strict=True))
    statistic = macro_f1(truth, said, unit_group, np.arange(5))
    present = sorted(set(truth[truth >= 0].tolist()))
    if not present:
        assert np.isnan(statistic.value)
        return
    expected = f1_score(truth, said, labels=present, average="macro", zero_division=0)
    assert statistic.value == pytest.approx(expected)
    twice = statistic.under(np.full((1, 5), 2.0))[0]
    assert twice == pytest.approx(expected), "every group twice changes nothing"


def test_tree_distance_by_hand() -> None:
    assert tree_distance(("a", "b", "c"), ("a", "b", "c")) == 0
    assert tree_distance(("a", "b", "c"), ("a", "b", "d")) == pytest.approx(1 / 3)
    assert tree_distance(("a", "b"), ("a", "b", "d")) == pytest.approx(1 / 5)
    assert tree_distance(("a", "b", "c"), ("x", "b", "c")) == 1


def test_the_probe_knows_the_categories_and_their_levels() -> None:
    metrics = classify(TRAIN, DEVELOPMENT, TEST, _encode).evaluation().metrics
    for modality in ("image", "text", "fused"):
        task = f"category/{modality}"
        assert metrics[f"{task}/top1"].value > 0.85
        assert metrics[f"{task}/top1"].value <= metrics[f"{task}/top1@level2"].value + 1e-12
        assert metrics[f"{task}/top1@level2"].value <= metrics[f"{task}/top1@level1"].value + 1e-12
        assert metrics[f"{task}/tree_distance"].value < 0.1 < metrics[f"{task}/tree_distance"].chance  # type: ignore[operator]
        assert f"{task}/top5" not in metrics, "five of four candidates is no question"
    assert metrics["category/fused/top1"].value >= metrics["category/image/top1"].value


def test_levels_by_hand() -> None:
    """Prompts on the axes, photos that lean to them; zero-shot needs no luck here."""
    axes = np.eye(4, dtype=np.float32)
    test = EmbeddedSplit(
        images=axes[[0, 1, 2, 3]],
        samples=np.arange(4),
        product=np.arange(4),
        texts=list("wxyz"),
        text_vectors=axes[[0, 1, 2, 3]],
        catalog=np.arange(4),
        category=np.array([0, 0, 0, 3]),
        category_vectors=axes,
        category_paths=PATHS,
    )
    train = replace(test, category=np.array([0, 1, 2, 3]))
    found = classify(train, train, test, lambda texts: axes[: len(texts)])
    of = {name.removeprefix("category_zero_shot/image/"): values.tolist() for name, values in found.outcomes.items()}
    assert of["top1"] == [1, 0, 0, 1]
    assert of["top1@level2"] == [1, 1, 0, 1]
    assert of["top1@level1"] == [1, 1, 1, 1]
    assert of["tree_distance"] == pytest.approx([0, 1 / 3, 2 / 3, 0])


def test_a_category_that_training_lacks_is_a_miss_and_ties_too() -> None:
    scores = np.array([[0.5, 0.5, 0.1], [0.1, 0.9, 0.2]])
    assert _wrong_ahead(scores, np.array([0, 1])).tolist() == [1, 0]
    assert _wrong_ahead(scores, np.array([-1, -1])).tolist() == [3, 3]
    seen = TRAIN.keep(np.array([path != PATHS[3] for path in TRAIN.path_of_product]))
    found = classify(seen, DEVELOPMENT, TEST, _encode)
    truth = np.array([TEST.path_of_product[row] == PATHS[3] for row in range(200)])
    assert not found.outcomes["category/text/top1"][truth].any()
    assert found.outcomes["category/text/top1"][~truth].mean() > 0.85


def test_the_surest_mistakes_are_kept_by_name_and_by_path_where_names_are_the_same() -> None:
    twins = [("a", "b", "c"), ("a", "b", "d"), ("a", "e", "c"), ("g", "c")]
    named = (replace(split, category_paths=twins) for split in (TRAIN, DEVELOPMENT, TEST))
    found = classify(*named, _encode)
    assert found.about["mistakes"]["category/image"], "photos are noisy enough for some"
    for name, rows in found.about["mistakes"].items():
        assert [row["confidence"] for row in rows] == sorted((row["confidence"] for row in rows), reverse=True)
        wrong = np.flatnonzero(found.outcomes[f"{name}/top1"] == 0)
        for row in rows:
            assert row["row"] in wrong and row["said"] != row["truth"]
            assert row["said"].split(" › ")[-1] != row["truth"].split(" › ")[-1] or "›" in row["said"] + row["truth"]


def test_restricted_products_are_recognised_with_the_threshold_from_elsewhere() -> None:
    evaluation = recognise(TRAIN, DEVELOPMENT, TEST, ("a", "b"), precision=0.9).evaluation()
    for modality in ("image", "text", "fused"):
        task = f"restricted/{modality}"
        metrics = {name.removeprefix(f"{task}/"): one for name, one in evaluation.metrics.items() if task in name}
        assert metrics["ap"].value > 0.95 > 2 * metrics["ap"].chance * 0.9  # type: ignore[operator]
        assert metrics["precision@precision"].value == pytest.approx(0.92, abs=0.08)
        assert metrics["recall@precision"].value > 0.9
        assert metrics["ece"].value < 0.08
        assert metrics["ap"].low <= metrics["ap"].value <= metrics["ap"].high
    labels = [
        ["restricted" if p[:2] == ("a", "b") else "free" for p in s.path_of_product] for s in (TRAIN, DEVELOPMENT)
    ]
    head = LinearHead.fit(TRAIN.text_vectors, labels[0], DEVELOPMENT.text_vectors, labels[1])
    score = head.predict_proba(DEVELOPMENT.text_vectors)[:, head.values.index("restricted")]
    threshold = threshold_at_precision(score, np.array(labels[1]) == "restricted", 0.9)
    assert evaluation.about["thresholds"]["restricted/text"] == threshold, "chosen on the development split"
    told = evaluation.about["restricted"]
    assert told["in_split"] == sum(path[:2] == ("a", "b") for path in TEST.path_of_product)


def test_restricted_needs_both_kinds_and_a_threshold_needs_a_restricted_development_product() -> None:
    assert not recognise(TRAIN, DEVELOPMENT, TEST, ("nowhere",)).statistics
    free = DEVELOPMENT.keep(np.array([path[0] != "g" for path in DEVELOPMENT.path_of_product]))
    names = set(recognise(TRAIN, free, TEST, ("g",)).statistics)
    assert names == {f"restricted/{m}/{metric}" for m in ("image", "text", "fused") for metric in ("ap", "ece")}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.integers(0, 3)), min_size=2, max_size=25),
    drawn=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_average_precision_under_a_draw_is_that_of_the_repeated_rows(
    rows: list[tuple[int, bool, int]], drawn: list[int]
) -> None:
    score, positive, unit_group = (np.array(part) for part in zip(*rows, strict=True))
    if not positive.any():
        return
    apart = score + 1e-3 * ~positive - 1e-4 * np.arange(len(score)) / len(score)
    statistic = weighted_average_precision(apart, positive, unit_group, np.arange(4))
    assert statistic.value == pytest.approx(average_precision_score(positive, apart))
    np.testing.assert_allclose(statistic.under(np.ones((1, 4))), statistic.value)
    times = np.array(drawn)[unit_group]
    repeated, truth = np.repeat(apart, times), np.repeat(positive, times)
    if truth.any():
        order = -np.arange(len(repeated))[np.argsort(np.argsort(-repeated, kind="stable"))]
        expected = average_precision_score(truth, order)
        assert statistic.under(np.array([drawn], float))[0] == pytest.approx(expected, abs=0.12)
    else:
        assert np.isnan(statistic.under(np.array([drawn], float))[0])


def test_one_catalog_has_no_interval_but_figures() -> None:
    alone = replace(TEST, catalog=np.zeros(200, int))
    for found in (extract(TRAIN, DEVELOPMENT, alone, _encode), recognise(TRAIN, DEVELOPMENT, alone, ("a",))):
        for metric in found.evaluation().metrics.values():
            assert np.isnan(metric.low) and not np.isnan(metric.value)
