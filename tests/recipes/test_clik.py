"""CLIK as a recipe: its batches, its loss over groups and over processes, its package."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from shoplens.config import ConfigError, override, read_yaml
from shoplens.datasets.format import Dataset
from shoplens.evaluation import shelves
from shoplens.nn.clik import Clik, Ranked
from shoplens.objectives.listwise import listwise
from shoplens.packages.embedder import Embedder
from shoplens.recipes import clik, eclip
from shoplens.recipes.clik import Ranker
from shoplens.schema import TopicText
from shoplens.synthetic import SyntheticShop, synthesize
from tests.conftest import ROOT
from tests.training.conftest import SMALL as SMALL_ECLIP
from tests.workers import together

CONFIG = str(ROOT / "workloads/configs/clik.yaml")
ECLIP = str(ROOT / "workloads/configs/eclip.yaml")
TOWERS = {name: read_yaml(ECLIP)[name] for name in ("model", "preprocessing")}
"""CLIK's configuration starts from a package; here it has e-CLIP's towers with new weights."""
SMALL = [
    *(setting for setting in SMALL_ECLIP if "batch_size" not in setting),
    "model.text.max_tokens=32",
    "batches={matching: 4, groups: 2, candidates: 5, product_text: 0.5}",
    "topics.least=6",
]

MakeRecipe = Callable[..., clik.ClikRecipe]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A shop of a few dozen topics: many small chunks, each with topics of its own."""
    settings = {"products": 900, "seed": 5, "image_size": 48, "impressions_per_product": 30.0}
    return synthesize(tmp_path_factory.mktemp("shop") / "shop", SyntheticShop(**settings), name="topics")


@pytest.fixture(scope="module")
def make(shop: Dataset) -> MakeRecipe:
    def made(*settings: str) -> clik.ClikRecipe:
        return clik.ClikRecipe.load(
            override({**read_yaml(CONFIG), **TOWERS}, [f"dataset={shop.path}", *SMALL, *settings]), CONFIG
        )

    return made


def tensors(batch: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in batch.items()}


def test_a_batch_holds_what_the_plan_says(make: MakeRecipe) -> None:
    recipe = make("batches.product_text=0")
    row = recipe.plan(0)[0]
    pairs, lists = recipe.config.batches.shape.apart(row)
    batch = recipe.collate(row, 0)
    assert batch["pixels"].shape == (4 + 2 * 5, 3, 32, 32)
    assert len(batch["ids"]) == len(batch["mask"]) == len(batch["types"]) == 4 + 2
    np.testing.assert_array_equal(batch["liked"], recipe.table.liked[lists].astype(np.float32))
    np.testing.assert_array_equal(batch["list_topic"], recipe.table.topic[lists[:, 0]])
    for name, value in recipe.collate(row, 0).items():
        np.testing.assert_array_equal(value, batch[name])
    assert any((recipe.collate(row, 1)[name] != batch[name]).any() for name in ("pixels",))


def test_a_batch_size_beside_the_batches_is_refused(make: MakeRecipe) -> None:
    with pytest.raises(ConfigError, match=r"training.batch_size follows from batches"):
        make("training.batch_size=64")


@pytest.mark.parametrize("reads", ["nothing", "mean", "attention"])
def test_one_call_is_a_loop_over_the_groups(make: MakeRecipe, reads: str) -> None:
    recipe = make(f"model.query.reads={reads}", "model.query.bank=3", "model.query.residual=false")
    torch.manual_seed(0)
    model = recipe.build().eval()
    assert isinstance(model, Clik)
    batch = tensors(recipe.collate(recipe.plan(0)[0], 0))
    if model.query.bank is not None:
        rows = functional.normalize(torch.randn(3, 16), dim=1)
        model.query.bank.write(rows, torch.tensor([-1, int(batch["list_topic"][0]), -1]), torch.tensor([-2, -3, -4]))
    liked = batch.pop("liked")
    ranked = model(**batch)
    for g in range(2):
        one = {
            **{name: batch[name][4 + g : 5 + g] for name in ("ids", "mask", "types")},
            "pixels": batch["pixels"][4 + 5 * g : 9 + 5 * g],
            "pair_topic": batch["pair_topic"][:0],
            "pair_product": batch["pair_product"][:0],
            "list_topic": batch["list_topic"][g : g + 1],
            "list_product": batch["list_product"][g : g + 1],
        }
        torch.testing.assert_close(model(**one).scores[0], ranked.scores[g], rtol=0, atol=1e-6)
    losses = [listwise(ranked.scores[g : g + 1], liked[g : g + 1], ranked.rank_scale) for g in range(2)]
    torch.testing.assert_close(listwise(ranked.scores, liked, ranked.rank_scale), torch.stack(losses).mean())


def _losses_of_shares(rank: int, folder: Path, settings: list[str]) -> None:
    """Process `rank` of four, of which two work together, then all."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    for world in WORLDS:
        if rank < world:
            store = torch.distributed.FileStore(str(folder / f"store-{world}"), world)
            torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
            _losses_of_a_share(rank, world, folder, settings)
            torch.distributed.destroy_process_group()


def _losses_of_a_share(rank: int, world: int, folder: Path, settings: list[str]) -> None:
    """Writes, ours and as the reference has it: the loss, the gradient of its mean over workers, and the bank."""
    for compat in COMPAT:
        recipe = clik.ClikRecipe.load(
            override({**read_yaml(CONFIG), **TOWERS}, [*settings, f"compat={compat}"]), CONFIG
        )
        torch.manual_seed(0)
        model = recipe.build()
        assert isinstance(model, Clik)
        assert model.query.bank is not None
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        share = np.split(recipe.plan(1)[0], world)[rank]
        loss = recipe.loss(model, tensors(recipe.collate(share, 1)))["loss"]
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        value = loss.detach()
        if world > 1:
            for mean in (gradient, value):
                torch.distributed.all_reduce(mean)
                mean /= world
        found = {"loss": value, "gradient": gradient, **model.query.bank.state_dict()}
        torch.save(found, folder / f"{compat}-{world}-{rank}.pt")


WORLDS = (2, 4)
COMPAT = ("none", "reference")


@pytest.mark.slow
def test_processes_together_are_one(shop: Dataset, tmp_path: Path) -> None:
    """The loss is that of one process; the gradient too, but for the reference's, which loses a part of it."""
    settings = [f"dataset={shop.path}", *SMALL, "batches={matching: 8, groups: 4, candidates: 3, product_text: 0.0}"]
    settings += ["topics.refinement=corrected", "model.query.reads=attention", "model.query.bank=8"]
    _losses_of_a_share(0, 1, tmp_path, settings)
    together(_losses_of_shares, max(WORLDS), tmp_path, settings)
    for compat, world in product(COMPAT, WORLDS):
        alone = torch.load(tmp_path / f"{compat}-1-0.pt")
        found = [torch.load(tmp_path / f"{compat}-{world}-{rank}.pt") for rank in range(world)]
        torch.testing.assert_close(found[0]["loss"], alone["loss"], rtol=1e-6, atol=0)
        for each in found:
            assert torch.equal(each["rows"], found[0]["rows"])
            torch.testing.assert_close(each["rows"], alone["rows"])
            assert torch.equal(each["topic"], alone["topic"])
        error = (found[0]["gradient"] - alone["gradient"]).norm() / alone["gradient"].norm()
        assert error > 0.1 if compat == "reference" else error < 1e-5


@pytest.mark.parametrize(("setting", "told"), [("training=5", "training"), ("batches=5", "batches")])
def test_settings_of_the_wrong_shape_are_named(make: MakeRecipe, setting: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make(setting, "compat=reference")


def test_where_nothing_is_known_of_liking_only_matching_is_learnt(make: MakeRecipe) -> None:
    recipe = make("topics.made_of=[colour,category_1]", "topics.candidates=listed", "topics.liked=nothing")
    model = recipe.build()
    terms = recipe.loss(model, tensors(recipe.collate(recipe.plan(0)[0], 0)))
    assert terms["ranking"] == 0
    torch.testing.assert_close(terms["loss"], recipe.config.objective.matching_weight * terms["matching"])
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_judged_by_topics_that_list_nothing_too(make: MakeRecipe) -> None:
    """A topic known from the log alone is ranked for, and asks for no photo of its own."""
    table = make().table
    groups = table.groups()[:3]
    rows = np.concatenate(groups)
    unlisted = np.isin(rows, groups[1])
    few = replace(table.keep(rows), listed=table.listed[rows] & ~unlisted)
    rng = np.random.default_rng(0)
    photos = rng.normal(size=(len(few), 8))
    topic, query = rng.normal(size=(2, 3, 8))
    found = shelves.judge(few, np.arange(len(few)), photos, topic, query, ["a", "a", "b"])
    assert len(found.outcomes["topic_to_image/mrr"]) == 2
    assert len(found.outcomes["ranking/mrr"]) == 3


def test_compat_sets_the_reference_and_leaves_what_is_set_beside_it(make: MakeRecipe) -> None:
    config = make("compat=reference", "topics.refinement=corrected", "batches.draw=random").config
    query = config.model.query
    assert (query.reads, query.temperature, query.learn_temperature, query.residual, query.bank) == (
        "attention",
        1.0,
        False,
        False,
        4,
    )
    assert (config.batches.draw, config.batches.one_topic, config.objective.targets) == ("random", True, "best")
    assert config.model.topic_text.seasons[0] == "봄"
    assert (config.objective.matching_weight, config.objective.exact_gradient) == (20, False)


def test_a_package_ranks_as_the_model_does_and_starts_another(
    make: MakeRecipe, ray_local: None, tmp_path: Path
) -> None:
    recipe = make("model.query.reads=attention", "model.query.bank=6")
    torch.manual_seed(1)
    model = recipe.build()
    assert isinstance(model, Clik)
    torch.nn.init.normal_(model.query.aggregate.weight, std=0.3)
    recipe.save(model, tmp_path / "package")
    ranker = Embedder.load(tmp_path / "package")
    assert isinstance(ranker, Ranker)
    bank = ranker.model.query.bank
    assert bank is not None
    assert bank.valid.all()
    assert json.loads((tmp_path / "package/config.json").read_text())["class"] == "shoplens.recipes.clik:Ranker"

    topic = TopicText(name="봄 원피스", date="2024-04-01", kwds=("꽃",))
    pixels = recipe.collate(recipe.plan(0)[0], 0)["pixels"]
    vectors = ranker.encode_images(pixels)
    best = ranker.rank(topic, vectors, top_n=3)
    asked = ranker.encode_topics([topic])
    scores = vectors @ asked.query[0]
    assert [place.index for place in best] == np.argsort(-scores, kind="stable")[:3].tolist()
    for place in best:
        assert place.score == pytest.approx(place.fit + place.attraction, abs=1e-6)
        assert place.fit == pytest.approx(
            float(asked.query[0] @ asked.topic[0] * (asked.topic[0] @ vectors[place.index])), abs=1e-6
        )

    settings = [s for s in SMALL if not s.startswith(("model", "preproc"))]
    further = clik.ClikRecipe.load(
        override(
            read_yaml(CONFIG), [f"dataset={recipe.dataset.path}", f"model.start_from={tmp_path / 'package'}", *settings]
        ),
        CONFIG,
    )
    started = further.build().state_dict()
    for name, value in ranker.model.state_dict().items():
        if name in started and not name.startswith("query"):
            assert torch.equal(started[name], value), name


def test_it_starts_from_an_eclip_package(make: MakeRecipe, shop: Dataset, tmp_path: Path) -> None:
    tree = override(read_yaml(ECLIP), [f"dataset={shop.path}", *SMALL_ECLIP, "attribute_heads=0"])
    base = eclip.EclipRecipe.load(tree, ECLIP)
    base.save(base.build(), tmp_path / "eclip")
    settings = [s for s in SMALL if not s.startswith(("model", "preproc"))]
    recipe = clik.ClikRecipe.load(
        override(read_yaml(CONFIG), [f"dataset={shop.path}", f"model.start_from={tmp_path / 'eclip'}", *settings]),
        CONFIG,
    )
    model, towers = recipe.build(), Embedder.load(tmp_path / "eclip").model.state_dict()
    for name, value in towers.items():
        assert torch.equal(model.state_dict()[name], value), name
    ranked = model(**{k: v for k, v in tensors(recipe.collate(recipe.plan(0)[0], 0)).items() if k != "liked"})
    assert isinstance(ranked, Ranked)
