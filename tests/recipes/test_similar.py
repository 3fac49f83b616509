"""Similar products as a recipe: its classes and batches, its loss over widths and over processes, its package."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from shoplens.config import ConfigError, override, read_yaml
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.errors import ShoplensError
from shoplens.evaluation import metric_space
from shoplens.evaluation.metrics import recall_at
from shoplens.evaluation.ranking import rank
from shoplens.nn.similar import SimilarEncoder
from shoplens.objectives.metric_learning import MetricConfig, MetricLoss
from shoplens.packages.embedder import Embedder
from shoplens.packages.photo_embedder import PhotoEmbedder
from shoplens.recipes import eclip, similar
from shoplens.recipes.similar import SimilarEmbedder
from shoplens.registry.versions import checksums
from shoplens.training import gradient_cache as streams
from shoplens.training.loop import parameter_groups
from tests.conftest import ROOT
from tests.training.conftest import SMALL as SMALL_ECLIP
from tests.training.conftest import noise_shop
from tests.workers import together

__all__ = ["noise_shop"]

CONFIG = str(ROOT / "workloads/configs/similar.yaml")
ECLIP = str(ROOT / "workloads/configs/eclip.yaml")
SMALL = [
    "model.start_from=null",
    "preprocessing.size=32",
    "model.dim=24",
    "model.image.name=vit_tiny_patch16_224",
    "model.image.options={img_size: 32, patch_size: 16, depth: 2, embed_dim: 32, num_heads: 2}",
    "model.head={dim: 12, prefixes: [4]}",
    "batches={classes: 4, samples: 2}",
    "training.learning_rate=0.003",
    "training.learning_rates={}",
    "classes.splits={shares: [2, 1, 1]}",
]
KINDS = ("hyperbolic", "spherical", "triplet", "arcface")

MakeRecipe = Callable[..., similar.SimilarRecipe]


@pytest.fixture(scope="module")
def make(noise_shop: Dataset) -> MakeRecipe:
    def made(*settings: str) -> similar.SimilarRecipe:
        tree = override(read_yaml(CONFIG), [f"dataset={noise_shop.path}", *SMALL, *settings])
        return similar.SimilarRecipe.load(tree, CONFIG)

    return made


def tensors(batch: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in batch.items()}


def first_batch(recipe: similar.SimilarRecipe) -> dict[str, Tensor]:
    return tensors(recipe.collate(recipe.plan(0)[0], 0))


def encoder_of(recipe: similar.SimilarRecipe) -> SimilarEncoder:
    torch.manual_seed(0)
    model = recipe.build()
    assert isinstance(model, SimilarEncoder)
    return model


def test_a_batch_holds_photos_of_training_classes(make: MakeRecipe, noise_shop: Dataset) -> None:
    recipe = make()
    plan = recipe.plan(0)
    assert plan.shape == (recipe.steps(0), 8) == (recipe.steps(5), 8)
    catalog = np.array(noise_shop.products["catalog_id"].to_pylist())[noise_shop.product_row]
    for row in plan:
        assert sorted(np.unique(catalog[row], return_counts=True)[1]) == [2] * 4
    batch = recipe.collate(plan[0], 0)
    assert batch["pixels"].shape == (8, 3, 32, 32) and batch["pixels"].dtype == np.uint8
    assert len(np.unique(batch["label"])) == 4 and batch["label"].max() < recipe.classes == len(
        np.unique(catalog[plan])
    )
    for name, value in recipe.collate(plan[0], 0).items():
        np.testing.assert_array_equal(value, batch[name])
    assert (recipe.collate(plan[0], 1)["pixels"] != batch["pixels"]).any(), "augmented anew each epoch"
    assert (recipe.plan(1) != plan).any()
    assert recipe.plan_statistics(plan)["classes_seen"] == recipe.classes


def test_no_class_of_a_held_out_split_is_learnt(make: MakeRecipe, noise_shop: Dataset) -> None:
    recipe = make()
    judged = similar._judged(noise_shop, recipe.config.classes, recipe.config.splits, "val")[0]
    catalog = np.array(noise_shop.products["catalog_id"].to_pylist())[noise_shop.product_row]
    assert not set(catalog[recipe.photos]) & set(catalog[judged])
    recipe.check()
    with pytest.raises(ShoplensError, match=r"no class with two photos in split iconic; .* train \(\d+\), val \(\d+\)"):
        make("evaluation.split=iconic").check()


def test_a_split_without_classes_of_its_own_is_told(make: MakeRecipe) -> None:
    with pytest.raises(ShoplensError, match="no class with two photos to learn from in split val alone"):
        make("classes.splits={}", "splits=[val]").check()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("training.batch_size=64", "follow from batches"),
        ("training=5", "training"),
        ("batches=5", "batches"),
        ("model.head.prefixes=[12]", "prefixes are different numbers from 2 to dim - 1"),
        ("model.head.served=5", "neither dim nor one of the prefixes"),
        ("objective.kind=euclidean", "objective.kind"),
    ],
)
def test_bad_settings_are_refused_by_name(make: MakeRecipe, setting: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(setting)


def test_a_recipe_travels_to_workers_as_its_configuration(make: MakeRecipe) -> None:
    recipe = make()
    _ = recipe.samples
    pickled = pickle.dumps(recipe)
    assert len(pickled) < 10_000
    other = pickle.loads(pickled)
    np.testing.assert_array_equal(other.plan(2), recipe.plan(2))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_sum_over_the_widths(make: MakeRecipe, kind: str) -> None:
    recipe = make(f"objective={{kind: {kind}}}")
    model, batch = encoder_of(recipe), first_batch(recipe)
    rows = model.encode_rows(batch["pixels"])
    assert rows.shape == (8, 12)
    terms = recipe.loss(model, batch)
    torch.testing.assert_close(terms["loss"], terms["loss_12"] + terms["loss_4"])
    assert set(terms) == {"loss", "loss_12", "loss_4"} | ({"clipped", "clipped_4"} if kind == "hyperbolic" else set())
    if kind != "arcface":
        narrow = MetricLoss(recipe.config.objective, 4, recipe.classes)
        torch.testing.assert_close(terms["loss_4"], narrow(rows[:, :4], batch["label"]).loss)
    alone = make(f"objective={{kind: {kind}}}", "model.head.prefixes=[]")
    told = alone.loss(encoder_of(alone), batch)
    assert set(told) == {"loss"} | ({"clipped"} if kind == "hyperbolic" else set())


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_lower_the_loss(make: MakeRecipe, kind: str) -> None:
    recipe = make(f"objective={{kind: {kind}}}")
    model, batch = encoder_of(recipe), first_batch(recipe)
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe.training), betas=recipe.training.betas)
    losses = []
    for _ in range(8):
        loss = recipe.loss(model.train(), batch)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_streams_have_the_gradient_of_the_whole_batch(make: MakeRecipe) -> None:
    recipe = make("objective={kind: arcface}")
    model, batch = encoder_of(recipe).eval(), first_batch(recipe)
    recipe.loss(model, batch)["loss"].backward()
    whole = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    streams.check(recipe, model, {"image": 3})
    autocast = torch.autocast("cpu", enabled=False)
    streams.accumulate(recipe, model, batch, {"image": 3}, torch.device("cpu"), lambda: autocast)
    for ours, theirs in zip((p.grad for p in model.parameters()), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


SPREAD = ("hyperbolic", "arcface")
"""Kinds whose rows meet across processes, and whose class weights do not."""


def _gradient_of_a_share(rank: int, world: int, folder: Path, settings: list[str]) -> None:
    """Writes the loss and its gradient, each the mean over workers."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    if world > 1:
        store = torch.distributed.FileStore(str(folder / "store"), world)
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    for kind in SPREAD:
        recipe = similar.SimilarRecipe.load(
            override(read_yaml(CONFIG), [*settings, f"objective={{kind: {kind}}}"]), CONFIG
        )
        torch.manual_seed(0)
        model = recipe.build()
        share = np.split(recipe.plan(1)[0], world)[rank]
        loss = recipe.loss(model, tensors(recipe.collate(share, 1)))["loss"]
        loss.backward()
        found = torch.cat([loss.detach()[None], *(p.grad.flatten() for p in model.parameters() if p.grad is not None)])
        if world > 1:
            torch.distributed.all_reduce(found)
        torch.save(found / world, folder / f"{kind}-{world}-{rank}.pt")
    if world > 1:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one(noise_shop: Dataset, tmp_path: Path) -> None:
    """Of a batch cut through a class: three photos each, two classes and a half to a worker."""
    settings = [f"dataset={noise_shop.path}", *SMALL, "batches={classes: 6, samples: 3}"]
    _gradient_of_a_share(0, 1, tmp_path, settings)
    together(_gradient_of_a_share, 2, 2, tmp_path, settings)
    for kind in SPREAD:
        alone, *both = (torch.load(tmp_path / f"{kind}-{name}.pt") for name in ("1-0", "2-0", "2-1"))
        assert torch.equal(both[0], both[1])
        torch.testing.assert_close(both[0][0], alone[0], rtol=1e-5, atol=0)
        assert (both[0] - alone).norm() / alone.norm() < 1e-4, kind


def saved(recipe: similar.SimilarRecipe, model: nn.Module, folder: Path) -> SimilarEmbedder:
    recipe.save(model, folder)
    return SimilarEmbedder.load(folder)


def test_a_package_is_its_model_without_the_loss(make: MakeRecipe, tmp_path: Path) -> None:
    recipe = make("objective={kind: arcface}", "model.head.served=4")
    model = encoder_of(recipe).eval()
    embedder = saved(recipe, model, tmp_path / "package")
    assert sorted(checksums(tmp_path / "package")) == [
        "MODEL_CARD.md",
        "config.json",
        "model.safetensors",
        "preprocess.json",
    ]
    assert isinstance(PhotoEmbedder.load(tmp_path / "package"), SimilarEmbedder)
    assert embedder.dim == 4
    pixels = recipe.collate(recipe.plan(0)[0], 0)["pixels"]
    with torch.inference_mode():
        rows = model.encode_rows(torch.tensor(pixels))
    np.testing.assert_array_equal(embedder.encode_rows(pixels), rows)
    np.testing.assert_allclose(embedder.encode_images(pixels), functional.normalize(rows[:, :4], dim=1), atol=1e-6)
    np.testing.assert_allclose(embedder.encode_images(pixels, batch_size=3), embedder.encode_images(pixels), atol=1e-6)
    assert embedder.encode_images(pixels[:0]).shape == (0, 4) and embedder.encode_rows(pixels[:0]).shape == (0, 12)
    assert not any(name.startswith("losses") for name in embedder.model.state_dict())
    with pytest.raises(ShoplensError, match="SimilarEmbedder.*its model does photo → vector"):
        Embedder.load(tmp_path / "package")
    card = (tmp_path / "package/MODEL_CARD.md").read_text()
    assert f"{len(recipe.photos)} photos of {recipe.classes} classes" in card


def test_it_starts_from_the_tower_of_an_eclip_and_ranks_as_it_does(noise_shop: Dataset, tmp_path: Path) -> None:
    tree = override(read_yaml(ECLIP), [f"dataset={noise_shop.path}", *SMALL_ECLIP, "attribute_heads=0"])
    base = eclip.EclipRecipe.load(tree, ECLIP)
    base.save(base.build(), tmp_path / "eclip")
    began = [s for s in SMALL if not s.startswith(("model", "preprocessing"))]
    began += [f"dataset={noise_shop.path}", f"model.start_from={tmp_path / 'eclip'}"]
    recipe = similar.SimilarRecipe.load(
        override(read_yaml(CONFIG), [*began, "model.head={dim: 40, prefixes: [20]}"]), CONFIG
    )
    assert (recipe.config.model.dim, recipe.config.preprocessing.size) == (16, 32)
    embedder = saved(recipe, recipe.build(), tmp_path / "similar")
    pixels = recipe.collate(recipe.plan(0)[0], 0)["pixels"]
    ours, theirs = embedder.encode_images(pixels), Embedder.load(tmp_path / "eclip").encode_images(pixels)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-5)

    settings = [f"model.start_from={tmp_path / 'similar'}", *began[:-1]]
    for head, same in (("{dim: 40, prefixes: []}", True), ("{dim: 30, prefixes: []}", False)):
        further = similar.SimilarRecipe.load(
            override(read_yaml(CONFIG), [*settings, f"model.head={head}"]), CONFIG
        ).build()
        assert isinstance(further, SimilarEncoder)
        for name, value in embedder.model.state_dict().items():
            if name.startswith("image.") or same:
                assert torch.equal(further.state_dict()[name], value), name
    with pytest.raises(ConfigError, match=r"model\.dim is 99, where the checkpoint of model\.start_from has 16"):
        similar.SimilarRecipe.load(override(read_yaml(CONFIG), [*began, "model.dim=99"]), CONFIG)


def drawn(seed: int, spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of 40 classes of three around their centres, whose lengths differ, their classes, and rows of others."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(60, 8))
    rows = (np.repeat(centres, 3, axis=0) + spread * rng.normal(size=(180, 8))).astype(np.float32)
    return rows[:120], np.arange(120) // 3, rows[120:]


def by_loop(near: np.ndarray, label: np.ndarray, k: int) -> float:
    """recall@k of photos that rank all others by `near` [n, n]."""
    hits = []
    for i, row in enumerate(near):
        order = [j for j in np.argsort(-row, kind="stable") if j != i]
        hits.append(any(label[j] == label[i] for j in order[:k]))
    return float(np.mean(hits))


def test_figures_are_those_of_loops_at_every_width_and_in_the_ball() -> None:
    rows, label, others = drawn(0, 0.7)
    config = MetricConfig(curvature=0.1, clip_radius=2.3)
    found = metric_space.judge(rows, label, config, [2, 4, 8], 4, others)
    figures = {name: float(values.mean()) for name, values in found.outcomes.items()}
    cut = {width: rows[:, :width] / np.linalg.norm(rows[:, :width], axis=1, keepdims=True) for width in (2, 4, 8)}
    for name, width in (("similar", 4), ("similar/first_2", 2), ("similar/first_8", 8)):
        for k in (1, 10):
            assert figures[f"{name}/recall@{k}"] == pytest.approx(by_loop(cut[width] @ cut[width].T, label, k))
    unit = others / np.linalg.norm(others, axis=1, keepdims=True)
    axes = np.linalg.svd(unit - unit.mean(0))[2][:4]
    reduced = (cut[8] - unit.mean(0)) @ axes.T
    reduced /= np.linalg.norm(reduced, axis=1, keepdims=True)
    assert figures["similar/pca_4/recall@1"] == pytest.approx(by_loop(reduced @ reduced.T, label, 1))
    wide = rows[:, :4].astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    points = np.tanh(np.sqrt(0.1) * np.minimum(length, 2.3)) * wide / length / np.sqrt(0.1)
    gaps = ((points[:, None] - points[None]) ** 2).sum(2)
    inner = 1 - 0.1 * (points**2).sum(1)
    distance = np.arccosh(1 + 2 * 0.1 * gaps / (inner[:, None] * inner))
    assert figures["similar/ball/recall@1"] == pytest.approx(by_loop(-distance, label, 1))
    assert found.about["clipped_share"] == pytest.approx(float((length > 2.3).mean()), abs=1e-4)
    assert 0 < found.about["relative_delta"] < 1
    assert set(figures) == {
        f"{name}/recall@{k}"
        for name in ("similar", "similar/first_2", "similar/first_8", "similar/pca_2", "similar/pca_4", "similar/ball")
        for k in (1, 10)
    }
    told_apart = found.outcomes["similar/ball/recall@1"] != found.outcomes["similar/recall@1"]
    assert told_apart.any(), "lengths tell something here"


def test_where_every_row_is_clipped_the_ball_ranks_as_the_cosine() -> None:
    rows, label, others = drawn(1, 0.9)
    found = metric_space.judge(rows, label, MetricConfig(clip_radius=1.0), [8], 8, others)
    assert found.about["clipped_share"] == 1
    for k in (1, 10):
        np.testing.assert_array_equal(found.outcomes[f"similar/ball/recall@{k}"], found.outcomes[f"similar/recall@{k}"])
    on_sphere = metric_space.judge(rows, label, MetricConfig(kind="spherical"), [8], 8, others[:0])
    assert set(on_sphere.outcomes) == {"similar/recall@1", "similar/recall@10"}
    assert "clipped_share" not in on_sphere.about


def test_a_package_is_judged_by_classes_it_has_not_seen(
    make: MakeRecipe, noise_shop: Dataset, ray_local: None, tmp_path: Path
) -> None:
    recipe = make("evaluation={split: val, widths: [3]}")
    embedder = saved(recipe, encoder_of(recipe), tmp_path / "package")
    evaluation, report = similar.SimilarRecipe.evaluate(tmp_path / "package", noise_shop, None, {"model": "similar/1"})
    photos, label, _ = similar._judged(noise_shop, recipe.config.classes, ("train",), "val")
    vectors = embedder.encode_images(
        np.stack([embedder.preprocess(decode(noise_shop.read_image(int(photo))).image) for photo in photos])
    )
    task = similar.class_retrieval(vectors, label)
    expected = recall_at(1, rank(task).first)
    np.testing.assert_array_equal(evaluation.outcomes["similar/recall@1"], expected)
    metric = evaluation.metrics["similar/recall@1"]
    assert metric.low <= metric.value <= metric.high and metric.n == len(photos)
    for name in ("first_3", "first_4", "pca_3", "pca_4", "ball"):
        assert f"similar/{name}/recall@1" in evaluation.metrics
    assert evaluation.about["classes"] == "none of those of the training"
    assert {"relative_delta", "clipped_share"} <= evaluation.about.keys()
    assert "Similar photos" in report and "data:image/jpeg" in report
    settings = json.loads((tmp_path / "package/config.json").read_text())
    assert (settings["recipe"], settings["class"]) == ("similar", "shoplens.recipes.similar:SimilarEmbedder")
    with pytest.raises(ShoplensError, match="no class with two photos in split nowhere"):
        similar.SimilarRecipe.evaluate(tmp_path / "package", noise_shop, "nowhere", {})
    with pytest.raises(ShoplensError, match="the head gives 12 numbers, there are no 13"):
        similar.SimilarRecipe.evaluate(tmp_path / "package", noise_shop, None, {}, {"widths": [13]})
