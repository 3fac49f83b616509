"""Evaluations of a dual encoder: the splits they embed and learn from, what they leave out, and their page."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from shoplens.config import ConfigError, validate
from shoplens.datasets.format import Dataset
from shoplens.datasets.samples import Samples
from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError
from shoplens.evaluation import product_tasks as evaluating
from shoplens.evaluation.leaks import Leaks
from shoplens.evaluation.product_tasks import ALL, EvaluationConfig

COLOURS = ("red", "green", "blue")
KINDS = (
    ("Clothing", "Tops", "Shirts"),
    ("Clothing", "Tops", "Coats"),
    ("Clothing", "Underwear", "Socks"),
    ("Home", "Mugs"),
)
Shop = Callable[..., Dataset]
Run = Callable[..., Any]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Makes datasets of two listings a catalog: a colour and a kind each, flat photos, any number a split."""

    def make(sizes: dict[str, int], shared: Sequence[int] = ()) -> Dataset:
        """shared   catalogs of `train` that also have a listing in `test`"""
        folder = tmp_path / f"shop{len(list(tmp_path.iterdir()))}"
        staging = Staging(str(folder), {})
        staging.begin()
        rng, products, images = np.random.default_rng(0), [], []
        listings = [(split, f"{split}{i // 2}") for split, n in sizes.items() for i in range(n)]
        listings += [("test", f"train{catalog}") for catalog in shared]
        shards = {}
        for number, (split, catalog) in enumerate(listings):
            code = int(hashlib.sha256(catalog.encode()).hexdigest(), 16)
            colour, kind = COLOURS[code % 3], KINDS[code // 3 % 4]
            products.append(
                {
                    "product_id": f"p{number}",
                    "catalog_id": catalog,
                    "title": f"{colour} {kind[-1]} {number}",
                    "category_path": list(kind),
                    "category_id": "/".join(kind).lower(),
                    "attributes": {"colour": [colour]},
                    "split": split,
                }
            )
            buffer = io.BytesIO()
            Image.new("RGB", (24, 24), colour).save(buffer, "PNG")
            if split not in shards:
                shards[split] = staging.shard(f"{split}-000000.tar").__enter__()
            offset = shards[split].add(f"p{number}", buffer.getvalue(), "png", "{}")
            images.append(
                {
                    "image_id": f"p{number}",
                    "product_id": f"p{number}",
                    "role": "main",
                    "split": split,
                    "shard": f"{split}-000000.tar",
                    "offset": offset,
                    "length": len(buffer.getvalue()),
                    "width": 24,
                    "height": 24,
                    "format": "png",
                    "sha256": "",
                    "phash": int(rng.integers(2**63)),
                }
            )
        for shard in shards.values():
            shard.__exit__(None, None, None)
        staging.write_chunk("0", {"products": products, "images": images})
        return staging.finish("clothes", {})

    return make


class Embedding(NamedTuple):
    """A noisy bag of words: texts -> vectors, photos of a dataset -> vectors, and how many photos each call embedded."""

    encode: Callable[[Sequence[str]], np.ndarray]
    photos: Callable[[Dataset, np.ndarray], np.ndarray]
    calls: list[int]


@pytest.fixture
def embedding() -> Embedding:
    words, calls = np.random.default_rng(7), []
    directions: dict[str, np.ndarray] = {}

    def encode(texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            rng = np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:12], 16))
            known = [directions.setdefault(word, words.normal(size=24)) for word in text.split() if not word.isdigit()]
            rows.append(np.sum(known, axis=0) + 0.5 * rng.normal(size=24))
        vectors = np.array(rows)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def photos(dataset: Dataset, samples: np.ndarray) -> np.ndarray:
        calls.append(len(samples))
        titles = dataset.products["title"].to_pylist()
        return encode([f"{titles[dataset.product_row[sample]]} photo" for sample in samples])

    return Embedding(encode, photos, calls)


@pytest.fixture
def package(tmp_path: Path, embedding: Embedding) -> tuple[Path, list[int]]:
    """The folder of a package with that encoder, and how many photos each call embedded."""
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"evaluation": {"split": "val"}, "text_fields": ["title"]}))
    return folder, embedding.calls


def _with(embedding: Embedding, run: Run) -> Run:
    """`run` of a package's folder and a dataset with the settings of the folder and that encoder."""

    def called(folder: Path, dataset: Dataset, *given: Any, **named: Any) -> Any:
        settings = json.loads((folder / "config.json").read_text())
        photos = functools.partial(embedding.photos, dataset)
        return run(folder, settings, dataset, *given, photos=photos, encode=embedding.encode, **named)

    return called


@pytest.fixture
def evaluate(embedding: Embedding) -> Run:
    """As a recipe calls it: the package's settings under those given, and the dataset named in `about`."""

    def judged(
        folder: Path,
        settings: dict[str, Any],
        dataset: Dataset,
        split: str | None,
        about: dict[str, Any],
        overrides: dict[str, Any] | None = None,
        **vectors: Any,
    ) -> Any:
        chosen = {**settings["evaluation"], **(overrides or {}), **({"split": split} if split else {})}
        config = validate(evaluating.EvaluationConfig, chosen, "evaluation")
        where = {**about, "dataset": dataset.name, "dataset_digest": dataset.digest, "split": config.split}
        return evaluating.evaluate(folder, settings, config, dataset, where, **vectors)

    return _with(embedding, judged)


@pytest.fixture
def fit_attribute_heads(embedding: Embedding) -> Run:
    return _with(embedding, evaluating.fit_attribute_heads)


def test_all_tasks_come_together_in_one_evaluation_and_one_page(
    shop: Shop, package: tuple[Path, list[int]], evaluate: Run
) -> None:
    dataset, (folder, calls) = shop({"train": 200, "val": 60, "test": 60}), package
    settings = {"tasks": "all", "restricted": "Underwear"}
    evaluation, page = evaluate(folder, dataset, "test", {"model": "words"}, settings)
    assert sorted(calls) == [60, 60, 200]
    tasks = {"/".join(name.split("/")[:2]) for name in evaluation.metrics}
    for task in ("matching", "clustering", "attributes", "attributes_zero_shot", "category", "category_zero_shot"):
        assert {f"{task}/{modality}" for modality in ("image", "text", "fused")} <= tasks
    assert {f"restricted/{modality}" for modality in ("image", "text", "fused")} <= tasks
    assert evaluation.metrics["attributes/fused/macro_f1:colour"].value > 0.9
    assert evaluation.metrics["category/text/top1"].value > 0.9
    assert evaluation.metrics["restricted/text/ap"].value > 0.9
    assert "matching/text/pair_f1" in evaluation.metrics
    for title in ("Product matching", "Product clustering", "Attributes, by linear heads", "Restricted products"):
        assert title in page
    assert "macro_f1" not in page and "LEAK" not in page
    assert all(metric.title and metric.task_title for metric in evaluation.metrics.values())
    again, same = evaluate(folder, dataset, "test", {"model": "words"}, settings)
    assert repr(again.metrics) == repr(evaluation.metrics) and same == page


def test_the_default_embeds_the_split_alone(shop: Shop, package: tuple[Path, list[int]], evaluate: Run) -> None:
    folder, calls = package
    evaluation, _ = evaluate(folder, shop({"train": 40, "val": 30, "test": 20}), None, {})
    assert calls == [30] and evaluation.about["split"] == "val"
    assert {name.split("/")[0] for name in evaluation.metrics} == {
        "text_to_image", "image_to_text", "zero_shot_category", "matching", "variants", "search",
    }  # fmt: skip
    assert evaluation.headline == ["text_to_image/recall@10", "image_to_text/recall@10", "matching/image/recall@1"]


@pytest.mark.parametrize(("split", "sizes"), [("test", {"train": 200, "test": 40}), ("val", {"train": 200, "val": 40})])
def test_without_a_development_split_a_fifth_of_the_training_catalogs_stands_in(
    split: str,
    sizes: dict[str, int],
    shop: Shop,
    package: tuple[Path, list[int]],
    evaluate: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    measure = evaluating.measure
    monkeypatch.setattr(evaluating, "measure", lambda *given: seen.append(given[1:4]) or measure(*given))
    evaluate(package[0], shop(sizes), split, {}, {"tasks": ["attributes"]})
    ((judged, train, development),) = seen
    assert (len(judged.texts), len(train.texts), len(development.texts)) == (40, 160, 40)
    assert not set(train.texts) & set(development.texts)
    assert not set(train.catalog) & set(development.catalog)


def test_catalogs_that_were_learnt_are_left_out_and_named(
    shop: Shop, package: tuple[Path, list[int]], evaluate: Run
) -> None:
    folder, calls = package
    dataset = shop({"train": 40, "test": 20}, shared=(0, 1, 1))
    evaluation, page = evaluate(folder, dataset, "test", {})
    told = evaluation.about["leaks"]
    assert (told["catalogs"], told["of"], told["products"], told["left_out"]) == (2, 12, 3, True)
    assert evaluation.about["counts"]["products"] == 20 and calls == [20]
    assert "LEAK: 2 of 12 catalogs of this split are also in train; their 3 products are left out" in page
    kept, page = evaluate(folder, dataset, "test", {}, {"leaks": "keep"})
    assert kept.about["counts"]["products"] == 23 and "flatter" in page


def test_near_duplicate_photos_are_shown_those_of_one_title_first(
    shop: Shop, package: tuple[Path, list[int]], evaluate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = shop({"train": 20, "test": 10})
    test, train = (Samples.of(dataset, [split]).sample for split in ("test", "train"))
    near = np.stack([test[:3], train[:3]], axis=1)
    titles = dataset.products["title"].to_pylist()
    row = int(dataset.product_row[train[2]])
    titles[row] = " ".join(reversed(titles[int(dataset.product_row[test[2]])].upper().split()))
    place = dataset.products.column_names.index("title")
    dataset.products = dataset.products.set_column(place, "title", [titles])
    monkeypatch.setattr(evaluating, "leaks", lambda ours, theirs: Leaks(np.zeros(0), np.zeros(0), near, 5))
    evaluation, page = evaluate(package[0], dataset, "test", {})
    told = evaluation.about["leaks"]
    assert (told["near_duplicates"], told["same_words"]) == (3, 1)
    assert told["near"][0] == near[2].tolist() and not told["left_out"]
    assert "3 photos look like one in train" in page and f"train: {titles[row]}" in page


def test_a_split_by_photo_is_kept_and_said_to_be_one(
    shop: Shop, package: tuple[Path, list[int]], evaluate: Run
) -> None:
    dataset = shop({"train": 40}, shared=range(12))
    evaluation, page = evaluate(package[0], dataset, "test", {})
    assert evaluation.about["counts"]["products"] == 12
    assert evaluation.about["leaks"]["by_photo"] and "It is a split by photo" in page


def test_what_the_model_was_trained_on_counts_too(shop: Shop, package: tuple[Path, list[int]], evaluate: Run) -> None:
    dataset = shop({"train": 20, "extra": 20, "test": 20}, shared=(0,))
    settings = {"evaluation": {}, "text_fields": ["title"], "splits": ["train", "extra", "elsewhere"]}
    (package[0] / "config.json").write_text(json.dumps(settings))
    assert evaluate(package[0], dataset, "test", {})[0].about["leaks"]["with"] == ["train", "extra"]
    told = evaluate(package[0], dataset, "extra", {})[0].about["leaks"]
    assert told["by_photo"] and told["of"] == 10, "judged on what it was trained on"


def test_heads_are_not_judged_on_what_they_learn_from(
    shop: Shop, package: tuple[Path, list[int]], evaluate: Run
) -> None:
    dataset = shop({"train": 40})
    with pytest.raises(ShoplensError, match="cannot be judged on it"):
        evaluate(package[0], dataset, "train", {}, {"tasks": "all"})
    assert evaluate(package[0], dataset, "train", {})[0].metrics, "retrieval can"
    with pytest.raises(ShoplensError, match="no photo in split train"):
        evaluate(package[0], shop({"test": 10}), "test", {}, {"tasks": ["categories"]})


def test_the_heads_that_are_packaged_are_the_ones_judged(
    shop: Shop,
    package: tuple[Path, list[int]],
    fit_attribute_heads: Run,
    evaluate: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dataset, (folder, calls) = shop({"train": 200, "val": 60, "test": 60}), package
    extractor = fit_attribute_heads(folder, dataset, most=150)
    assert extractor is not None and calls == [60, 150]
    assert extractor.keys == ["colour"] and extractor.learnt_from["splits"] == ["train", "val"]
    assert (folder / "attributes" / "image.safetensors").is_file()
    judged = []
    measure = evaluating.measure
    monkeypatch.setattr(evaluating, "measure", lambda *given: judged.append(given[-1]) or measure(*given))
    evaluation, _ = evaluate(folder, dataset, "test", {}, {"tasks": ["attributes"]})
    assert evaluation.about["attribute_heads"] == "the package's own"
    assert {"macro_f1", "coverage", "precision", "ece"} == {
        name.rpartition("/")[2] for name in evaluation.metrics if name.startswith("attributes_with_category/fused/")
    }
    packaged = extractor.heads["image"].heads["colour"]
    np.testing.assert_array_equal(judged[0].heads["image"].heads["colour"].weights, packaged.weights)
    evaluation, _ = evaluate(folder, dataset, "val", {}, {"tasks": ["attributes"]})
    assert judged[1] is None, "they were calibrated on it"
    assert evaluation.about["attribute_heads"] == "fitted for this evaluation"
    evaluate(folder, shop({"train": 40, "val": 61}), "val", {}, {"tasks": ["attributes"]})
    assert judged[2] is not None, "another dataset"


def test_without_attributes_to_learn_nothing_is_embedded_or_packaged(
    shop: Shop, package: tuple[Path, list[int]], fit_attribute_heads: Run
) -> None:
    folder, calls = package
    assert fit_attribute_heads(folder, shop({"train": 10}), most=100) is None, "too few products of any colour"
    assert fit_attribute_heads(folder, shop({"test": 100}), most=100) is None, "no training split"
    assert not calls and not (folder / "attributes").exists()


def test_attributes_and_paths_reach_the_split(shop: Shop) -> None:
    dataset = shop({"train": 10})
    split = evaluating.embed_split(
        dataset,
        Samples.of(dataset, ["train"]),
        photos=lambda samples: np.ones((len(samples), 1), np.float32),
        encode=lambda texts: np.ones((len(texts), 1), np.float32),
        text_fields=["title"],
        prompt="{leaf}",
    )
    for text, attributes, path in zip(split.texts, split.attributes, split.path_of_product, strict=True):
        colour, kind, _ = text.split()
        assert attributes == {"colour": (colour,)} and path[-1] == kind


def test_settings() -> None:
    assert EvaluationConfig().tasks == ("retrieval", "matching", "search")
    assert validate(EvaluationConfig, {"tasks": "all"}, "x").tasks == ALL
    for tree in ({"tasks": ["clusterin"]}, {"tasks": []}, {"precision": 0}, {"leaks": "drop"}, {"restrictd": "x"}):
        with pytest.raises(ConfigError, match=next(iter(tree))):
            validate(EvaluationConfig, tree, "x")
