"""The loop on a real Ray cluster: the same numbers, however many workers there are and whatever befalls them."""

from __future__ import annotations

import functools
import json
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from shoplens.training.ray import checkpoints
from shoplens.training.ray.trainer import TrainingFailed, Workers, train
from tests.training.conftest import MakeRecipe

MINED = ("training.epochs=10", "negatives=mined", "mined_negatives={start_epoch: 8}")
"""Plans that depend on the weights, so that a wrong one shows."""


class CurvesFile:
    """Curves as JSON lines: step -> loss."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def __enter__(self) -> CurvesFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def log(self, metrics: dict[str, float], step: int) -> None:
        if "train/loss" in metrics:
            self._file.write(json.dumps({"step": step, **metrics}) + "\n")
            self._file.flush()


def losses(path: Path) -> np.ndarray:
    points = {row["step"]: row["train/loss"] for row in map(json.loads, path.read_text().splitlines())}
    assert sorted(points) == list(range(len(points)))
    return np.array([points[step] for step in sorted(points)])


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_bitwise_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def undisturbed(
    ray_local: None, small_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Weights and losses of 60 steps on one worker."""
    storage = tmp_path_factory.mktemp("undisturbed")
    recipe = small_recipe(*MINED, "training.checkpoint_every=60")
    curves = functools.partial(CurvesFile, storage / "curves")
    model, summary = train(recipe, name="whole", storage=storage, open_curves=curves)
    assert summary["steps"] == 60
    return weights(model), losses(storage / "curves")


def test_a_worker_killed_in_mid_epoch_changes_nothing(
    undisturbed: tuple[dict[str, torch.Tensor], np.ndarray], small_recipe: MakeRecipe, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_after_first_checkpoint() -> None:
        while checkpoints.latest(tmp_path / "killed") is None:
            time.sleep(0.02)
        for process in psutil.Process().children(recursive=True):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                killed.append(process.pid)

    killer = threading.Thread(target=kill_after_first_checkpoint, daemon=True)
    killer.start()
    recipe = small_recipe(*MINED, "training.checkpoint_every=7")
    curves = functools.partial(CurvesFile, tmp_path / "curves")
    model, _ = train(recipe, name="killed", storage=tmp_path, open_curves=curves)
    killer.join(timeout=5)
    assert len(killed) == 1, "the worker was to be killed while it trained"
    steps = [json.loads(line)["step"] for line in (tmp_path / "curves").read_text().splitlines()]
    assert steps.count(max(steps)) == 1
    assert len(steps) >= 60
    assert_bitwise_equal(undisturbed[0], weights(model))
    np.testing.assert_array_equal(undisturbed[1], losses(tmp_path / "curves"))


def test_two_workers_in_streams_have_the_loss_curve_of_one(
    ray_local: None, small_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """Same global batches, larger from the third epoch on; dropout off, since its noise belongs to a worker."""
    settings = [f"model.text.config.{name}_dropout_prob=0.0" for name in ("hidden", "attention_probs")]
    settings += ["training.epochs=3", "training.batch_sizes={2: 32}"]
    for count, streams in ((1, []), (2, ["training.stream_size={image: 3, text: 8}"])):
        recipe = small_recipe(*settings, *streams)
        workers = Workers(count=count, cpus=0.5, feed_tasks=1)
        curves = functools.partial(CurvesFile, tmp_path / str(count))
        train(recipe, name=f"w{count}", storage=tmp_path, workers=workers, open_curves=curves)
    assert len(losses(tmp_path / "1")) == 6 + 6 + 3
    np.testing.assert_allclose(losses(tmp_path / "1"), losses(tmp_path / "2"), rtol=1e-4)


def test_a_dataloader_feeds_the_same_batches(
    undisturbed: tuple[dict[str, torch.Tensor], np.ndarray], small_recipe: MakeRecipe, tmp_path: Path
) -> None:
    model, _ = train(small_recipe(*MINED, "training.feed=loader"), name="loader", storage=tmp_path)
    assert_bitwise_equal(undisturbed[0], weights(model))


def test_a_diverging_run_fails_with_a_reason(ray_local: None, small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = small_recipe("training.learning_rate=1e30", "training.max_failures=0", "training.max_grad_norm=1e30")
    with pytest.raises(TrainingFailed, match=r"lower training\.learning_rate"):
        train(recipe, name="diverges", storage=tmp_path)
