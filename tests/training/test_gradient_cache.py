"""Encoding in streams against encoding at once: the same gradients, the same parameters after some steps."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from shoplens.errors import ShoplensError
from shoplens.objectives.contrastive import ObjectiveConfig, contrastive
from shoplens.recipes.base import Batch
from shoplens.training import gradient_cache as streams
from tests.training.conftest import MakeRecipe
from tests.workers import together

CPU = torch.device("cpu")
ROWS, STEPS = 24, 5


class Pair(nn.Module):
    """Two towers in float64, with dropout, and a logit scale."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.image, self.text = (
            nn.Sequential(nn.Linear(7, 9), nn.GELU(), nn.Dropout(dropout), nn.Linear(9, 5)).double() for _ in range(2)
        )
        self.logit_scale = nn.Parameter(torch.tensor(2.5, dtype=torch.float64))


class PairRecipe:
    towers: Mapping[str, tuple[str, ...]] = {"image": ("pixels",), "text": ("ids",)}

    def encode(self, model: nn.Module, tower: str, inputs: Batch) -> Tensor:
        (entry,) = inputs.values()
        return functional.normalize(model.get_submodule(tower)(entry), dim=1)

    def compare(self, model: nn.Module, rows: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        scale = model.get_parameter("logit_scale").exp()
        return contrastive(rows["image"], rows["text"], batch["catalog"], scale, ObjectiveConfig())._asdict()


def drawn(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    rows = (torch.randn(ROWS, 7, dtype=torch.float64, generator=generator) for _ in range(2))
    return {
        **dict(zip(("pixels", "ids"), rows, strict=True)),
        "catalog": torch.randint(9, (ROWS,), generator=generator),
    }


def trained(model: nn.Module, sizes: Mapping[str, int], own: slice, *, with_graph: bool = False) -> dict[str, Tensor]:
    """Parameters after some steps of SGD; `with_graph` keeps what `streams` throws away, and differentiates at once."""
    recipe, optimizer = PairRecipe(), torch.optim.SGD(model.parameters(), lr=0.5)
    torch.manual_seed(3)
    for step in range(STEPS):
        batch = {name: value[own] for name, value in drawn(step).items()}
        optimizer.zero_grad()
        if with_graph:
            rows = {
                tower: torch.cat(
                    [recipe.encode(model, tower, {entry: part}) for part in batch[entry].split(sizes.get(tower, ROWS))]
                )
                for tower, (entry,) in recipe.towers.items()
            }
            recipe.compare(model, rows, batch)["loss"].backward()
        else:
            streams.accumulate(recipe, model, batch, sizes, CPU, contextlib.nullcontext)
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def assert_same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-12, atol=1e-13, msg=name)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("sizes", [{"image": 24}, {"image": 12, "text": 8}, {"image": 8}, {"image": 3, "text": 7}])
def test_streams_train_as_one_shot_does(sizes: dict[str, int], dropout: float) -> None:
    """1, 2, 3 and 8 streams, the last one ragged; gradient clipping makes a wrong scale gradient show everywhere."""
    torch.manual_seed(0)
    model = Pair(dropout)
    at_once = trained(copy.deepcopy(model), sizes if dropout else {}, slice(None), with_graph=True)
    assert_same(trained(model, sizes, slice(None)), at_once)


def test_random_state_goes_on_as_after_one_encoding() -> None:
    torch.manual_seed(0)
    model, recipe = Pair(0.3), PairRecipe()
    after = []
    for sizes in ({}, {"image": 24, "text": 24}, {"image": 5, "text": 7}):
        torch.manual_seed(1)
        streams.accumulate(recipe, model, drawn(0), sizes, CPU, contextlib.nullcontext)
        after.append(torch.rand(3))
    assert torch.equal(after[0], after[1])
    torch.manual_seed(1)
    for tower, (entry,) in recipe.towers.items():
        for part in drawn(0)[entry].split({"image": 5, "text": 7}[tower]):
            recipe.encode(model, tower, {entry: part})
    assert torch.equal(after[2], torch.rand(3))


def test_a_loss_per_stream_gets_the_scale_gradient_wrong() -> None:
    """What accumulation that differentiates the whole loss once a stream does (open_clip's): K times the gradient."""
    torch.manual_seed(0)
    model, recipe, batch = Pair(0.0), PairRecipe(), drawn(0)
    with torch.no_grad():
        cached = {
            tower: recipe.encode(model, tower, {entry: batch[entry]}) for tower, (entry,) in recipe.towers.items()
        }
    for stream in range(8):
        part = slice(stream * 3, stream * 3 + 3)
        rows = {}
        for tower, (entry,) in recipe.towers.items():
            again = recipe.encode(model, tower, {entry: batch[entry][part]})
            rows[tower] = torch.cat([cached[tower][: part.start], again, cached[tower][part.stop :]])
        recipe.compare(model, rows, batch)["loss"].backward()
    theirs = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    streams.accumulate(recipe, model, batch, {"image": 3, "text": 3}, CPU, contextlib.nullcontext)
    for name, value in model.named_parameters():
        assert value.grad is not None
        torch.testing.assert_close(
            theirs[name], (8 if name == "logit_scale" else 1) * value.grad, rtol=1e-9, atol=1e-12
        )


def _rank(rank: int, world: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.manual_seed(0)
    share = ROWS // world
    torch.save(
        trained(Pair(0.0), {"image": 5, "text": 12}, slice(rank * share, (rank + 1) * share)), f"{folder}/{rank}.pt"
    )
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_workers_in_streams_train_as_one_does_at_once(tmp_path: Path) -> None:
    together(_rank, 2, 2, str(tmp_path))
    torch.manual_seed(0)
    at_once = trained(Pair(0.0), {}, slice(None), with_graph=True)
    for rank in range(2):
        assert_same(torch.load(tmp_path / f"{rank}.pt", weights_only=True), at_once)


@pytest.mark.parametrize(
    ("sizes", "model", "reason"),
    [
        ({"pictures": 4}, nn.Linear(1, 1), "towers are image, text"),
        ({"image": 4}, nn.Sequential(nn.BatchNorm2d(3)), "batch norm"),
    ],
)
def test_what_streams_cannot_do_is_refused(sizes: dict[str, int], model: nn.Module, reason: str) -> None:
    with pytest.raises(ShoplensError, match=reason):
        streams.check(PairRecipe(), model, sizes)


def test_the_recipe_of_eclip_is_streamed(small_recipe: MakeRecipe) -> None:
    """Its own gradients in float32, from streams and from one forward pass."""
    no_dropout = [f"model.text.config.{name}_dropout_prob=0" for name in ("hidden", "attention_probs")]
    recipe = small_recipe(*no_dropout)
    torch.manual_seed(0)
    model = recipe.build()
    batch = {name: torch.tensor(value) for name, value in recipe.collate(recipe.plan(0)[0], 0).items()}
    recipe.loss(model, batch)["loss"].backward()
    at_once = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    terms = streams.accumulate(recipe, model, batch, {"image": 5, "text": 6}, CPU, contextlib.nullcontext)
    assert set(terms) >= {"loss", "excess", "logit_scale"}
    for name, value in model.named_parameters():
        if name in at_once:
            torch.testing.assert_close(value.grad, at_once[name], rtol=1e-4, atol=1e-6, msg=name)
