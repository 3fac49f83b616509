"""The detector of watermarks as a recipe: drawn and given labels, tiles and their soft maximum, package, evaluation."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.types.schema import DataType
from PIL import Image
from torch import Tensor

from shoplens.config import ConfigError, override, read_yaml
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError
from shoplens.nn.watermark import MarkDetector
from shoplens.packages.capabilities import SCORE_IMAGE
from shoplens.packages.check import check
from shoplens.packages.model import PackagedModel, read_config
from shoplens.packages.precision import choose
from shoplens.packages.table import answer
from shoplens.recipes import watermark
from shoplens.recipes.watermark import MarkScorer, WatermarkRecipe
from shoplens.registry.signature import signature
from shoplens.training import loop, trunk_vectors
from shoplens.training.batches import MicroBatches
from tests.conftest import ROOT
from tests.training.conftest import noise_shop

__all__ = ["noise_shop"]

CONFIG = str(ROOT / "workloads/configs/watermark.yaml")
SMALL = [
    "preprocessing.size=64",
    "model.image={name: test_convnext}",
    "model.head={stages: [0, 1], tiles: 3, hidden: 16, dropout: 0.0}",
    "model.locked=[]",
    "photo_views=null",
    "augmentation=null",
    "training.batch_size=16",
    "training.log_every=1",
    "training.threads=1",
    "evaluation={split: train, cut: 0.5}",
]

MakeRecipe = Callable[..., WatermarkRecipe]


@pytest.fixture(scope="module")
def make(noise_shop: Dataset) -> MakeRecipe:
    def made(*settings: str, dataset: Dataset = noise_shop) -> WatermarkRecipe:
        tree = override(read_yaml(CONFIG), [f"dataset={dataset.path}", *SMALL, *settings])
        return WatermarkRecipe.load(tree, CONFIG)

    return made


@pytest.fixture(scope="module")
def labelled_shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """60 grey photos. The attribute `watermark` says of 40 whether they have a white corner."""
    staging = Staging(str(tmp_path_factory.mktemp("labelled") / "shop"), {})
    staging.begin()
    rng = np.random.default_rng(0)
    products: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    with staging.shard("train-000000.tar") as shard:
        for number in range(60):
            value = ("yes", "no", None)[number % 3]
            pixels = np.clip(rng.normal(110, 15, (64, 64, 3)), 0, 255).astype(np.uint8)
            if value == "yes":
                pixels[2:14, 2:14] = 255
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG")
            product = {"product_id": f"p{number}", "title": "x", "description": "", "texts": {}, "category_path": []}
            attributes = {} if value is None else {"watermark": [value]}
            products.append({**product, "attributes": attributes, "split": "train"})
            place = shard.add(f"i{number}", buffer.getvalue(), "jpg", "{}")
            image = {"image_id": f"i{number}", "product_id": f"p{number}", "role": "main", "split": "train"}
            image |= {"shard": "train-000000.tar", "offset": place, "length": len(buffer.getvalue()), "width": 64}
            images.append({**image, "height": 64, "format": "jpg", "sha256": "", "phash": number})
    staging.write_chunk("000000", {"products": products, "images": images})
    return staging.finish("labelled", {})


LABEL = "label={attribute: watermark, marked: 'yes'}"


def tensors(batch: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in batch.items()}


def detector(recipe: WatermarkRecipe) -> MarkDetector:
    torch.manual_seed(0)
    model = recipe.build()
    assert isinstance(model, MarkDetector)
    return model


def test_half_of_a_batch_is_marked_and_the_label_is_true(make: MakeRecipe, noise_shop: Dataset) -> None:
    recipe = make()
    plan = recipe.plan(0)
    assert plan.shape == (recipe.steps(0), 16)
    batch = recipe.collate(plan[0], 0)
    assert batch["pixels"].shape == (16, 3, 64, 64) and batch["pixels"].dtype == np.uint8
    assert batch["marked"].dtype == np.float32
    marked = []
    for epoch in range(4):
        for sample in plan[0].tolist():
            config = recipe.config
            view = watermark.drawn_view(
                noise_shop, sample, config.preprocessing, None, config.drawn, recipe.draws(sample, epoch)
            )
            marked.append(view.kind != "")
        got = recipe.collate(plan[0], epoch)
        np.testing.assert_array_equal(got["marked"], np.array(marked[-16:], np.float32))
        np.testing.assert_array_equal(got["pixels"][-1], view.pixels)
    assert 0.25 < np.mean(marked) < 0.75
    for name, value in pickle.loads(pickle.dumps(recipe)).collate(plan[0], 0).items():
        np.testing.assert_array_equal(value, batch[name])


def test_a_view_is_what_was_drawn(make: MakeRecipe, noise_shop: Dataset) -> None:
    """Without print and sharpening, an unmarked photo is the photo, but for JPEG; a marked one is not."""
    recipe = make("drawn={printed: 0, sharpened: 0, longest: [1, 1]}")
    config = recipe.config
    for seed in range(12):
        view = watermark.drawn_view(
            noise_shop, seed, config.preprocessing, None, config.drawn, np.random.default_rng(seed)
        )
        photo = config.preprocessing(decode(noise_shop.read_image(seed)).image).astype(int)
        away = np.abs(view.pixels - photo).max(0)
        if not view.kind:
            assert np.mean(away) < 30 and np.quantile(away, 0.99) < 90


def test_labels_of_the_dataset_are_taken_and_nothing_is_drawn(make: MakeRecipe, labelled_shop: Dataset) -> None:
    recipe = make(LABEL, dataset=labelled_shop)
    recipe.check()
    assert len(recipe.samples) == 40, "products without the attribute are left out"
    batch = recipe.collate(recipe.plan(0)[0], 0)
    ids = [labelled_shop.images["image_id"][int(sample)].as_py() for sample in recipe.plan(0)[0]]
    np.testing.assert_array_equal(batch["marked"], [int(name[1:]) % 3 == 0 for name in ids])
    photo = recipe.config.preprocessing(decode(labelled_shop.read_image(int(recipe.plan(0)[0, 0]))).image)
    np.testing.assert_array_equal(batch["pixels"][0], photo)
    with pytest.raises(ConfigError, match="a crop can cut off the mark"):
        make(LABEL, "augmentation={crop: 0.7}", dataset=labelled_shop)
    with pytest.raises(ShoplensError, match="watermark=oui: it has 0 marked and 40 clean photos"):
        make("label={attribute: watermark, marked: oui}", dataset=labelled_shop).check()
    with pytest.raises(ShoplensError, match="no photo in split val"):
        make("evaluation.split=val").check()


def test_tiles_are_the_maximum_and_mean_of_each_field_of_the_maps(make: MakeRecipe) -> None:
    model = detector(make()).eval()
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        tiles = model.trunk_vectors(pixels).view(2, 9, -1)
        maps = model.image.trunk((pixels - model.pixel_mean) / model.pixel_std)
        for place, (row, column) in enumerate(np.ndindex(3, 3)):
            expected = []
            for stage in maps:
                edges = [
                    (int(np.floor(at * stage.shape[2] / 3)), int(np.ceil((at + 1) * stage.shape[2] / 3)))
                    for at in range(3)
                ]
                field = stage[:, :, slice(*edges[row]), slice(*edges[column])].flatten(2)
                expected += [field.amax(2), field.mean(2)]
            torch.testing.assert_close(tiles[:, place], torch.cat(expected, 1), rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_cross_entropy_of_the_soft_maximum(make: MakeRecipe) -> None:
    recipe = make()
    model = detector(recipe).eval()
    batch = tensors(recipe.collate(recipe.plan(0)[0], 0))
    with torch.no_grad():
        evidence = model.tile_logits(batch["pixels"]).double()
        terms = recipe.loss(model, batch)
    assert evidence.shape == (16, 9)
    p = 1 / (1 + 1 / evidence.exp().mean(1))
    expected = -(batch["marked"] * p.log() + (1 - batch["marked"]) * (1 - p).log()).mean()
    assert float(terms["loss"]) == pytest.approx(float(expected), rel=1e-4)
    assert float(terms["accuracy"]) == pytest.approx(float(((p > 0.5) == (batch["marked"] > 0)).float().mean()))


def test_a_locked_trunk_trains_on_its_vectors_with_the_labels_of_their_views(make: MakeRecipe, tmp_path: Path) -> None:
    settings = ("model.locked=[image.trunk]", "photo_views=2", "training.epochs=2")
    recipe = make(*settings)
    recipe.trunk_file = trunk_vectors.compute(recipe, tmp_path)
    batch = recipe.collate(recipe.plan(0)[0], 1)
    model = detector(recipe).eval()
    torch.manual_seed(recipe.seed)
    trunk = recipe.build().eval()
    assert isinstance(trunk, MarkDetector)
    for row, sample in enumerate(recipe.plan(0)[0].tolist()):
        fits = []
        for view in range(2):
            with torch.no_grad():
                pixels = recipe.pixels(sample, recipe.draws(sample, 0, view))
                vector = trunk.trunk_vectors(torch.from_numpy(pixels[None]))[0].half().float()
            if np.allclose(vector, batch["pixels"][row].astype(np.float32), rtol=1e-2, atol=1e-2):
                fits.append(float(recipe._is_marked(sample, 0, view)))
        assert batch["marked"][row] in fits
    before = {name: weight.clone() for name, weight in trunk.state_dict().items()}
    learnt, _ = loop.train(recipe, MicroBatches(recipe, tmp_path).one_by_one, tmp_path)
    changed = {name for name, weight in learnt.state_dict().items() if not weight.equal(before[name])}
    assert {"tile.weight", "place", "evidence.weight"} <= changed
    assert not any(name.startswith("image.trunk") for name in changed)
    assert trunk_vectors.compute(make(*settings, "drawn.printed=0.1"), tmp_path) != recipe.trunk_file
    assert trunk_vectors.compute(make(*settings, "model.head.tiles=2"), tmp_path) != recipe.trunk_file
    assert model.image.width == batch["pixels"].shape[1]


def test_training_finds_the_marked_photos(make: MakeRecipe, labelled_shop: Dataset, tmp_path: Path) -> None:
    recipe = make(LABEL, "training.epochs=12", "training.warmup_steps=2", dataset=labelled_shop)
    model, _ = loop.train(recipe, MicroBatches(recipe, tmp_path).one_by_one, tmp_path)
    recipe.save(model, tmp_path / "package")
    evaluation, report = WatermarkRecipe.evaluate(tmp_path / "package", labelled_shop, "train", {"model": "marks/1"})
    assert evaluation.metrics["watermark/auc"].value > 0.95
    assert evaluation.metrics["watermark/auc"].n == 40
    assert {"watermark/precision", "watermark/recall", "watermark/false_alarms"} <= evaluation.metrics.keys()
    assert evaluation.about["cut"] == 0.5 and "kinds" not in evaluation.about
    assert "Marked photos" in report
    upper_left = model.eval().tile_logits(tensors(recipe.collate(recipe.plan(0)[0], 0))["pixels"]).argmax(1) == 0  # type: ignore[operator]
    marked = recipe.collate(recipe.plan(0)[0], 0)["marked"] > 0
    assert upper_left.numpy()[marked].mean() > 0.5, "evidence lies where the mark is"


def test_a_package_scores_as_the_model_and_is_judged_on_drawn_marks(
    make: MakeRecipe, noise_shop: Dataset, tmp_path: Path
) -> None:
    recipe = make()
    model = detector(recipe)
    recipe.save(model, tmp_path / "package")
    scorer = PackagedModel.load(tmp_path / "package")
    assert isinstance(scorer, MarkScorer) and scorer.can == (SCORE_IMAGE,) and scorer.dim is None
    check(scorer)
    pixels = recipe.collate(recipe.plan(0)[0], 0)["pixels"]
    with torch.no_grad():
        expected = torch.sigmoid(model.eval()(torch.tensor(pixels)))
    np.testing.assert_allclose(scorer.score_images(pixels, batch_size=5), expected, atol=1e-6)
    assert scorer.score_images(pixels[:0]).shape == (0,)
    settings = read_config(tmp_path / "package")
    assert settings["class"] == "shoplens.recipes.watermark:MarkScorer" and settings["capabilities"] == ["score_image"]
    assert f"{len(recipe.samples)} photos, marks drawn" in (tmp_path / "package/MODEL_CARD.md").read_text()
    evaluation, report = WatermarkRecipe.evaluate(tmp_path / "package", noise_shop)
    again, _ = WatermarkRecipe.evaluate(tmp_path / "package", noise_shop)
    assert evaluation.metrics == again.metrics, "the same marks are drawn"
    assert sum(row["photos"] for row in evaluation.about["kinds"].values()) == evaluation.about["counts"]["marked"]
    assert "Drawn marks by kind" in report


def test_its_pyfunc_gives_a_column_of_scores(make: MakeRecipe, noise_shop: Dataset) -> None:
    recipe = make()
    scorer = recipe.package(detector(recipe))
    photos = [noise_shop.read_image(place) for place in range(3)]
    table = answer(scorer, pd.DataFrame({"image": photos}, index=[4, 5, 6]))
    assert list(table.columns) == ["score"] and list(table.index) == [4, 5, 6]
    pixels = np.stack([scorer.preprocessing(decode(photo).image) for photo in photos])
    np.testing.assert_allclose(table["score"], scorer.score_images(pixels), atol=1e-6)
    (column,) = signature(scorer.can).outputs.inputs
    assert (column.name, column.type) == ("score", DataType.double)
    assert choose(scorer).precision in ("float32", "bfloat16", "float16")


def test_scores_that_are_none_are_refused(make: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make()
    scorer = recipe.package(detector(recipe))
    for answers, message in (
        (lambda pixels: np.full(len(pixels), 1.5), "do not lie between 0 and 1"),
        (lambda pixels: np.full(len(pixels), 1 / len(pixels)), "differently in a batch and alone"),
        (lambda pixels: np.zeros(1 + len(pixels)), "with 3 results for 2 items"),
    ):
        monkeypatch.setattr(scorer, "score_images", answers)
        with pytest.raises(ShoplensError, match=message):
            check(scorer)


def test_a_trunk_without_such_stages_is_told(make: MakeRecipe) -> None:
    with pytest.raises(ShoplensError, match=r"has no stages \(0, 9\)|cannot build the image tower"):
        make("model.head.stages=[0, 9]").build()
