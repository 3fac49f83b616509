"""The recipe: its arms, its batches, its configuration."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from shoplens.config import ConfigError, read_yaml
from shoplens.datasets.format import Dataset
from shoplens.datasets.images import decode
from shoplens.errors import ShoplensError
from shoplens.evaluation.heads.extractor import Extractor
from shoplens.packages.embedder import Embedder
from shoplens.plugins import recipe_modules
from shoplens.recipes import eclip as eclip_recipe
from shoplens.recipes import find, names
from shoplens.registry.versions import checksums
from shoplens.training import gradient_cache
from tests.conftest import ROOT
from tests.curation.pipeline.raw import run, settings, write_raw
from tests.training.conftest import MakeRecipe, noise_shop, small_recipe

__all__ = ["noise_shop", "small_recipe"]


def test_arms_are_configurations(small_recipe: MakeRecipe) -> None:
    told = {
        arm: (c.objective.kind, c.near_duplicates, c.negatives)
        for arm in ("clip", "eclip", "filter", "hard")
        for c in [small_recipe(f"arm={arm}").config]
    }
    assert told == {
        "clip": ("clip", "keep", "uniform"),
        "eclip": ("soft", "keep", "uniform"),
        "filter": ("soft", "drop", "uniform"),
        "hard": ("soft", "keep", "category"),
    }
    mixed = small_recipe("arm=clip", "negatives=category").config
    assert (mixed.objective.kind, mixed.negatives) == ("clip", "category")


def test_batches_know_catalogs_and_augment_anew(small_recipe: MakeRecipe) -> None:
    clip, eclip = small_recipe("arm=clip"), small_recipe("objective.kind=graded")
    samples = clip.plan(0)[0]
    shared = eclip.collate(np.arange(16), 0)["catalog"]
    assert len(np.unique(shared)) == 4, "16 photos of 8 products in 4 catalogs"
    pixels = clip.collate(samples, 0)["pixels"]
    np.testing.assert_array_equal(pixels, eclip.collate(samples, 0)["pixels"])
    assert not np.array_equal(pixels, clip.collate(samples, 1)["pixels"]), "augmented anew each epoch"


def test_hard_batches_begin_at_their_step(small_recipe: MakeRecipe) -> None:
    negatives = "category_negatives={start_step: 8, catalogs: 4, offers: 2, uniform_share: 0.0}"
    hard, uniform = small_recipe("arm=hard", negatives), small_recipe()
    assert hard.steps(0) == 6
    same = [
        np.array_equal(a, b) for epoch in (0, 1) for a, b in zip(hard.plan(epoch), uniform.plan(epoch), strict=True)
    ]
    assert same == [True] * 8 + [False] * 4


def test_photos_are_trained_on_with_the_texts_that_curation_gave_them(small_recipe: MakeRecipe, tmp_path: Path) -> None:
    run(settings(write_raw(tmp_path / "raw"), tmp_path / "out", shards={"records": 50, "val": 0.2, "test": 0}))
    recipe = small_recipe(f"dataset={tmp_path / 'out'}", "image_texts={}", "training.batch_size=8")
    assert isinstance(recipe, eclip_recipe.EclipRecipe)
    recipe.check()
    own = recipe.image_texts
    said: dict[str, set[int]] = {}
    for epoch in range(4):
        samples = recipe.plan(epoch)[0]
        batch = recipe.collate(samples, epoch)
        for sample, ids, catalog in zip(samples, batch["ids"], batch["catalog"], strict=True):
            texts = own.texts[own.start[sample] : own.start[sample + 1]]
            known = {tuple(recipe.tokenizer.encode(text).ids): text for text in texts}
            text = known[tuple(int(token) for token in ids if token)]
            said.setdefault(text, set()).add(int(catalog))
    assert len(said) > 8
    assert {len(codes) for codes in said.values()} == {1}, "equal texts share a catalog"
    assert len(set.union(*said.values())) == len(said), "and no others do"


def test_a_recipe_travels_to_workers_as_configuration_and_tokenizer(small_recipe: MakeRecipe) -> None:
    recipe = small_recipe()
    _ = recipe.samples, recipe.texts
    pickled = pickle.dumps(recipe)
    assert len(pickled) < 100_000
    other = pickle.loads(pickled)
    assert other.config == recipe.config
    for name, value in recipe.collate(np.arange(8), 3).items():
        np.testing.assert_array_equal(other.collate(np.arange(8), 3)[name], value)


def test_the_same_seed_builds_the_same_model(small_recipe: MakeRecipe) -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(small_recipe().build().state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("arm=eclipp", "arm"),
        ("training.epochs=0", "training.epochs"),
        ("model.text.confg={}", "did you mean config"),
        ("model.text.name=bert", "either `name`"),
        ("promotion.gates=[{metric: x}]", "at_least, max_drop or both"),
        ("evaluation.prompt=[1]", "evaluation.prompt"),
    ],
)
def test_bad_settings_are_refused_by_name(small_recipe: MakeRecipe, assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_recipe(assignment)


def test_an_unknown_split_and_recipe_are_said(small_recipe: MakeRecipe) -> None:
    with pytest.raises(ShoplensError, match=r"no photo in split nowhere; it has train \(96\)"):
        small_recipe("splits=[nowhere]")
    with pytest.raises(ShoplensError, match=r"no photo in split test; it has train \(96\)"):
        small_recipe("evaluation.split=test").check()
    with pytest.raises(ConfigError, match="there is no recipe 'blip'"):
        find("blip")
    configured = {read_yaml(path).get("recipe") for path in (ROOT / "workloads/configs").glob("*.yaml")} - {None}
    assert set(names()) - recipe_modules().keys() == configured


def test_the_bias_is_trained_by_the_sigmoid_loss_alone(small_recipe: MakeRecipe) -> None:
    with pytest.raises(ConfigError, match=r"model\.logit_bias=true"):
        small_recipe("objective.kind=sigmoid")
    for kind in ("sigmoid", "soft"):
        recipe = small_recipe(f"objective.kind={kind}", "model.logit_bias=true")
        model = recipe.build()
        batch = {name: torch.tensor(value) for name, value in recipe.collate(recipe.plan(0)[0], 0).items()}
        terms = recipe.loss(model, batch)
        terms["loss"].backward()
        assert terms["logit_bias"] == -10
        assert (model.logit_bias.grad is not None) == (kind == "sigmoid")


def test_a_package_holds_heads_for_the_attributes_of_its_dataset(
    small_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, model = small_recipe(), small_recipe().build()
    recipe.save(model, tmp_path / "bare")
    assert Extractor.load(tmp_path / "bare") is None, "its products have no attributes"

    def embed(dataset: Dataset, samples: np.ndarray, package: Path) -> np.ndarray:
        embedder = Embedder.load(package)
        return embedder.encode_images(
            np.stack([embedder.preprocess(decode(dataset.read_image(int(sample))).image) for sample in samples])
        )

    monkeypatch.setattr(eclip_recipe, "embed_photos", embed)
    products = recipe.dataset.products
    warmth = [[("warmth", ["warm" if i // 2 % 2 else "cold"])] for i in range(products.num_rows)]
    kind = products.schema.field("attributes").type
    place = products.column_names.index("attributes")
    recipe.dataset.products = products.set_column(place, "attributes", pa.array(warmth, kind))
    recipe.save(model, tmp_path / "package")
    extractor = Extractor.load(tmp_path / "package")
    assert extractor is not None and extractor.keys == ["warmth"] and extractor.dim == recipe.config.model.dim
    assert extractor.learnt_from["dataset"] == recipe.dataset.digest
    assert "Attribute heads: warmth." in (tmp_path / "package" / "MODEL_CARD.md").read_text()
    assert {"attributes/categories.json", "attributes/image.safetensors"} <= checksums(tmp_path / "package").keys()

    def fails(*_: object, **__: object) -> None:
        raise ShoplensError("the disk is full")

    monkeypatch.setattr(eclip_recipe, "embed_photos", fails)
    with pytest.raises(ShoplensError):
        recipe.save(model, tmp_path / "cut")
    assert not (tmp_path / "cut").exists(), "half a package"
    off = small_recipe("attribute_heads=0")
    off.dataset.products = recipe.dataset.products
    off.save(model, tmp_path / "off")
    assert Extractor.load(tmp_path / "off") is None


def test_short_queries_join_the_batch(small_recipe: MakeRecipe) -> None:
    recipe = small_recipe("queries={catalogs: 2, words: 1}")
    batch = recipe.collate(recipe.plan(0)[0], 0)
    assert len(batch["query_ids"]) == len(batch["asks"]) == len(batch["facts"]) == 16
    asked, facts = batch["asks"], batch["facts"]
    assert all(((ask < 0) | (ask == fact)).all() for ask, fact in zip(asked, facts, strict=True)), "right for its photo"
    assert (asked >= 0).any()
    texts = {recipe.tokenizer.decode(ids) for ids in batch["query_ids"]}
    assert any("kind" in text for text in texts)
    assert not np.array_equal(asked, recipe.collate(recipe.plan(0)[0], 1)["asks"]), "drawn anew each epoch"


def test_the_loss_of_queries_is_added_and_streams_are_equal(small_recipe: MakeRecipe) -> None:
    queries = (
        "queries={catalogs: 2, weight: 0.5}",
        "model.text.config.hidden_dropout_prob=0.0",
        "model.text.config.attention_probs_dropout_prob=0.0",
    )
    recipe = small_recipe(*queries, "training.stream_size={image: 4, text: 4, query: 8}")
    torch.manual_seed(0)
    model = recipe.build().train()
    batch = {name: torch.tensor(value) for name, value in recipe.collate(recipe.plan(0)[0], 0).items()}
    terms = recipe.loss(model, batch)
    titles = small_recipe(*queries[1:])
    plain = titles.compare(
        model,
        {"image": recipe.encode(model, "image", batch), "text": recipe.encode(model, "text", batch)},
        batch,
    )
    assert terms["loss"].item() == pytest.approx(plain["loss"].item() + 0.5 * terms["queries"].item(), rel=1e-5)
    terms["loss"].backward()
    whole = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    streamed = gradient_cache.checked(recipe, model)
    gradient_cache.accumulate(
        streamed, model, batch, {"image": 4, "text": 4, "query": 8}, torch.device("cpu"), contextlib.nullcontext
    )
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(weight.grad, whole[name], rtol=1e-3, atol=1e-5)
