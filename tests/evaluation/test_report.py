from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shoplens.datasets.format import Dataset
from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError
from shoplens.evaluation.embedded import MODALITIES, EmbeddedSplit
from shoplens.evaluation.product_report import report, showcases
from shoplens.evaluation.report import THUMBNAIL, render
from shoplens.evaluation.results import Evaluation, Findings, MetricInfo
from shoplens.evaluation.tasks import evaluate_retrieval, retrieve
from shoplens.statistics.bootstrap import Statistic, ratio

HOSTILE = '</figcaption><script>alert(1)</script><img src="http://evil/x" onerror=alert(1)> "\' 콩두부 #{}'


def _dataset(folder: Path, n_products: int, each: int) -> Dataset:
    """Photos of one colour a product."""
    staging = Staging(str(folder), {})
    staging.begin()
    products, images = [], []
    with staging.shard("test-000000.tar") as shard:
        for p in range(n_products):
            products.append(
                {"product_id": f"p{p}", "title": HOSTILE, "category_path": ["a"], "category_id": "a", "split": "test"}
            )
            out = io.BytesIO()
            Image.new("RGB", (300, 200), (10 * p, 255 - 10 * p, 99)).save(out, "PNG")
            for i in range(each):
                place = shard.add(f"p{p}-{i}", out.getvalue(), "png", "{}")
                images.append(
                    {
                        "image_id": f"p{p}-{i}",
                        "product_id": f"p{p}",
                        "role": "main",
                        "split": "test",
                        "shard": "test-000000.tar",
                        "offset": place,
                        "length": len(out.getvalue()),
                        "width": 300,
                        "height": 200,
                        "format": "png",
                        "sha256": hashlib.sha256(out.getvalue()).hexdigest(),
                        "phash": 0,
                    }
                )
    staging.write_chunk("0", {"products": products, "images": images})
    return staging.finish("colours", {})


def _split(dataset: Dataset, noise: float) -> EmbeddedSplit:
    rng = np.random.default_rng(0)

    def unit(vectors: np.ndarray) -> np.ndarray:
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    n = dataset.products.num_rows
    center = rng.normal(size=(n, 16))
    product = dataset.product_row
    return EmbeddedSplit(
        images=unit(center[product] + noise * rng.normal(size=(len(product), 16))),
        samples=np.arange(len(product)),
        product=product,
        texts=[HOSTILE.replace("#{}", f"#{i}") for i in range(n)],
        text_vectors=unit(center),
        catalog=np.arange(n),
        category=np.arange(n) % 3,
        category_vectors=unit(rng.normal(size=(3, 16))),
        category_paths=[("a", "<b>x"), ("a", "y"), ("z", "w")],
    )


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_figures_and_pictures_and_no_hostile_title_gets_out(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "shop", 20, 3)
    split = _split(dataset, noise=1.2)
    about = {"model": "eclip/3<script>", "dataset": "colours", "dataset_digest": dataset.digest, "split": "test"}
    evaluation = evaluate_retrieval(split, seed=3, about=about)
    page = report(evaluation, split, dataset, cases=3)
    assert page == report(evaluation, split, dataset, cases=3)
    parsed = _Tags()
    parsed.feed(page)
    names = [tag for tag, _ in parsed.tags]
    assert "script" not in names and "<b>x" in parsed.text
    assert not any(attribute.startswith("on") for _, attributes in parsed.tags for attribute in attributes)
    sources = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    assert sources
    for source in sources:
        assert source is not None and source.startswith("data:image/jpeg;base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
        assert max(picture.size) == THUMBNAIL
    assert not any("href" in attributes for _, attributes in parsed.tags)
    for metric in evaluation.metrics.values():
        assert f"{100 * metric.value:.1f}" in parsed.text
    assert dataset.digest in parsed.text
    shown = [a["class"] or "" for tag, a in parsed.tags if tag == "figure"]
    assert sum("query" in kind for kind in shown) <= 3 * 3 * 2
    assert any("right" in kind for kind in shown) and any("wrong" in kind for kind in shown)


def test_of_hits_the_first_answer_is_right_and_of_misses_the_right_one_is_shown(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "shop", 20, 2)
    split = _split(dataset, noise=1.5)
    shown = showcases(evaluate_retrieval(split), split, dataset, cases=5)
    assert [show.title for show in shown] == ["Text finds photos", "Photo finds texts", "Product matching by photo"]
    for show in shown:
        assert show.hits and show.misses
        assert all(case.answers[0].right for case in show.hits)
        for case in show.misses:
            assert not case.answers[0].right
            assert any(card.right for card in case.answers) or (case.missed is not None and case.missed.right)
    assert len({case.query.text for case in shown[1].hits}) == min(5, len(shown[1].hits)), "of different catalogs"


def test_an_evaluation_of_another_split_is_refused(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "shop", 4, 2)
    small = _dataset(tmp_path / "other", 3, 2)
    with pytest.raises(ShoplensError, match="evaluate again"):
        report(evaluate_retrieval(_split(dataset, 1)), _split(small, 1), small)


def test_product_tasks_stand_side_by_side_with_every_figure(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path / "shop", 20, 2)
    split, rng = _split(dataset, noise=1.0), np.random.default_rng(0)
    found, group = retrieve(split), np.arange(20)
    for modality in MODALITIES:
        for metric, info in (
            ("macro_f1", MetricInfo(title="macro-F1")),
            ("coverage", MetricInfo(title="answered")),
            ("ece", MetricInfo(title="calibration error", lower_is_better=True)),
            ("macro_f1:" + HOSTILE, MetricInfo(title=f"by {modality}", attribute=HOSTILE)),
        ):
            statistic = ratio(rng.random(20), np.ones(20), group, group)
            info = replace(info, task_title="Attributes", modality=modality)
            found.add_statistic(f"attributes/{modality}/{metric}", statistic, 0.25, info)
        bins = [{"confidence": 0.3, "right": 0.25, "n": 8}, {"confidence": 0.9, "right": 1.0, "n": 2}]
        found.about.setdefault("reliability", {})[f"attributes/{modality}"] = bins
        wrong = {"row": 3, "said": HOSTILE, "truth": "a", "confidence": 0.75}
        found.about.setdefault("mistakes", {})[f"category/{modality}"] = [wrong]
    told = {"values": 2, "trained_on": 9, "several_values": 0, "rare_values": 0, "judged": 20, "unknown_value": 1}
    found.about["attributes"] = {HOSTILE: told}
    evaluation = found.evaluation({"dataset_digest": dataset.digest})
    parsed = _Tags()
    parsed.feed(report(evaluation, split, dataset, cases=1))
    names = [tag for tag, _ in parsed.tags]
    assert "script" not in names and HOSTILE in parsed.text
    for name, metric in evaluation.metrics.items():
        if name.startswith("attributes/"):
            for value in (metric.value, metric.low, metric.high):
                assert f"{100 * value:.1f}" in parsed.text
    assert names.count("svg") == 3 and names.count("circle") == 6
    first = next(attributes for tag, attributes in parsed.tags if tag == "circle")
    assert (float(first["cx"] or 0), float(first["cy"] or 0)) == (40, 80), "probability to the right, share upward"
    assert "calibration error ↓" in parsed.text and "chance 25.0" in parsed.text
    assert parsed.text.count("0.750") == 2, "wrong answers by photo and by both"


def test_an_evaluation_of_metrics_alone_is_a_page() -> None:
    """A model that draws photos from texts: no split, no pictures, a metric that is no share, one without chance."""
    rng = np.random.default_rng(0)
    found = Findings()
    group = np.arange(40)
    info = MetricInfo(title="Fréchet distance", task_title="Photos drawn from texts", unit="distance")
    distance = Statistic(1234.5, 40, group, lambda drawn: 1234.5 + drawn[:, 0], (0, np.inf))
    found.add_statistic("drawing/fd", distance, info=replace(info, lower_is_better=True))
    found.add("drawing/clip_score", 20 + rng.random(40), group, 10.0, replace(info, title="CLIP score", unit="points"))
    found.add("caption/exact", np.repeat([1.0, 0.0], 20), group, 0.1)
    found.about["by_style"] = {"<b>plain": {"photos": 30, "score": 0.25}, "busy": {"photos": 10, "score": 0.5}}
    found.titles["by_style"] = "By style"
    evaluation = found.evaluation({"model": "drawer/1"})
    parsed = _Tags()
    parsed.feed(render(evaluation))
    text = " ".join(parsed.text.split())
    assert "Photos drawn from texts" in text and "Fréchet distance, distance ↓ 1,234" in text.replace("1,235", "1,234")
    assert f"CLIP score, points {evaluation.metrics['drawing/clip_score'].value:.4g}" in text
    assert "caption exact 50.0" in text and "5.0× 40" in text, (
        "names where no title is given, and a lift of shares only"
    )
    assert "By style" in text and "<b>plain300.25" in text and "by style" not in text
    assert "Shares in per cent" in text and "Few products" not in text
    assert [tag for tag, attributes in parsed.tags if attributes.get("class") == "track"] == ["div"], (
        "a bar for the share"
    )


def test_metrics_of_before_without_descriptions_are_shown_by_name() -> None:
    evaluation = Evaluation.of(
        {"ranking/mrr": np.ones(4), "n": np.zeros(4)}, dict.fromkeys(("ranking/mrr", "n"), np.arange(4))
    )
    parsed = _Tags()
    parsed.feed(render(evaluation))
    text = " ".join(parsed.text.split())
    assert "ranking mrr 100.0" in text and "4 of “ranking”, 4 of “n”" in text, "few groups are told"
