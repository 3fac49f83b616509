"""The loop on a real Ray cluster: the same numbers, however many workers there are and whatever befalls them."""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from shoplens.errors import ShoplensError
from shoplens.recipes.eclip import EclipRecipe
from shoplens.training import loop, trunk_vectors
from shoplens.training.batches import MicroBatches
from shoplens.training.parts import Parts
from shoplens.training.ray import checkpoints
from shoplens.training.ray.trainer import TrainingFailed, Workers, check, train
from tests.training.conftest import MakeRecipe

MINED = ("training.epochs=10", "negatives=mined", "mined_negatives={start_epoch: 8}")
"""Plans that depend on the weights, so that a wrong one shows."""


class CurvesFile:
    """Curves of one process as JSON lines, in a file named for it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._file = (folder / f"{os.getpid()}.curves").open("a")

    def __enter__(self) -> CurvesFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.log({"closed": 1.0}, -1)
        self._file.close()

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._file.write(json.dumps({"step": step, "threads": torch.get_num_threads(), **metrics}) + "\n")
        self._file.flush()


def points(folder: Path) -> list[dict[str, float]]:
    """The points of every process that kept curves, oldest process first."""
    files = sorted(folder.glob("*.curves"), key=lambda path: path.stat().st_mtime)
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def losses(folder: Path) -> np.ndarray:
    found = {point["step"]: point["train/loss"] for point in points(folder) if "train/loss" in point}
    assert sorted(found) == list(range(len(found)))
    return np.array([found[step] for step in sorted(found)])


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_bitwise_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def in_this_process(recipe: EclipRecipe, folder: Path) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Weights and losses of the loop alone: no Ray, one worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with CurvesFile(folder) as curves:
            model, _ = loop.train(recipe, MicroBatches(recipe, folder).one_by_one, folder, curves=curves)
    finally:
        torch.set_num_threads(threads)
    return weights(model), losses(folder)


@pytest.fixture(scope="module")
def undisturbed(
    small_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Weights and losses of 60 steps without Ray."""
    return in_this_process(small_recipe(*MINED), tmp_path_factory.mktemp("undisturbed"))


def test_a_worker_killed_in_mid_epoch_changes_nothing(
    undisturbed: tuple[dict[str, torch.Tensor], np.ndarray], ray_local: None, small_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """On Ray, fed by Ray Data, taken up from a checkpoint: the bits of the loop alone."""
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
    steps = [point["step"] for point in points(tmp_path / "curves") if "train/loss" in point]
    assert steps.count(max(steps)) == 1
    assert len(steps) >= 60
    assert_bitwise_equal(undisturbed[0], weights(model))
    np.testing.assert_array_equal(undisturbed[1], losses(tmp_path / "curves"))


def test_two_workers_in_streams_have_the_loss_curve_of_one(
    ray_local: None, small_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """Same global batches, larger from the third epoch on; dropout off, since its noise belongs to a worker.

    Rank 0 alone keeps curves and closes them, and both compute with the threads of the configuration.
    """
    settings = [f"model.text.config.{name}_dropout_prob=0.0" for name in ("hidden", "attention_probs")]
    settings += ["training.epochs=3", "training.batch_sizes={2: 32}", "training.threads=1"]
    _, alone = in_this_process(small_recipe(*settings), tmp_path / "one")
    assert len(alone) == 6 + 6 + 3
    recipe = small_recipe(*settings, "training.stream_size={image: 3, text: 8}")
    workers = Workers(count=2, cpus=0.5, feed_tasks=1)
    curves, parts = functools.partial(CurvesFile, tmp_path / "curves"), Parts()
    parts.end("before")
    began = time.time()
    _, summary = train(recipe, name="two", storage=tmp_path, workers=workers, open_curves=curves, parts=parts)
    took = time.time() - began
    assert list(parts.seconds) == ["before", "start of workers", "first step", "further steps", "end of workers"]
    assert sum(parts.seconds.values()) - parts.seconds["before"] == pytest.approx(took, abs=0.5)
    np.testing.assert_allclose(alone, losses(tmp_path / "curves"), rtol=1e-4)
    assert len(list((tmp_path / "curves").iterdir())) == 1, "rank 0 alone"
    kept = points(tmp_path / "curves")
    assert {point["threads"] for point in kept} == {1}
    assert "closed" in kept[-1]
    assert summary["steps"] == 15 and summary["train/samples_per_second"] > 0


@pytest.mark.parametrize("feed", ["loader", "thread"])
def test_vectors_of_a_locked_trunk_are_fed_without_ray_data(
    feed: str, ray_local: None, small_recipe: MakeRecipe, tmp_path: Path
) -> None:
    settings = ("model.locked=[image.trunk]", "photo_views=2", "training.epochs=2")
    recipe = small_recipe(*settings, f"training.feed={feed}")
    model, _ = train(recipe, name=feed, storage=tmp_path)
    alone = small_recipe(*settings)
    alone.trunk_file = trunk_vectors.compute(alone, tmp_path / "alone")
    assert recipe.trunk_file is not None and recipe.trunk_file.name == alone.trunk_file.name
    assert_bitwise_equal(in_this_process(alone, tmp_path / "curves")[0], weights(model))


def test_workers_that_a_cluster_can_never_start_are_refused(small_recipe: MakeRecipe) -> None:
    recipe = small_recipe()
    check(recipe, Workers(count=4, cpus=1), {"CPU": 4.5})
    check(recipe, Workers(count=16, cpus=1))
    check(small_recipe("training.feed=thread"), Workers(count=4, cpus=1), {"CPU": 4})
    with pytest.raises(ShoplensError, match=r"4 training workers and their feed need 4\.5 CPUs, the cluster has 4:"):
        check(recipe, Workers(count=4, cpus=1), {"CPU": 4})
    with pytest.raises(ShoplensError, match="need 1 GPUs, the cluster has 0"):
        check(recipe, Workers(use_gpu=True), {"CPU": 4})
    with pytest.raises(ShoplensError, match="batch_size 16 is not a multiple of 3 workers"):
        check(recipe, Workers(count=3))


def test_a_diverging_run_fails_with_a_reason(ray_local: None, small_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = small_recipe("training.learning_rate=1e30", "training.max_failures=0", "training.max_grad_norm=1e30")
    with pytest.raises(TrainingFailed, match=r"lower training\.learning_rate"):
        train(recipe, name="diverges", storage=tmp_path)
