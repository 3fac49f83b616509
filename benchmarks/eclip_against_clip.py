"""e-CLIP's soft labels against CLIP's one-hot labels: loss curves and the metrics of an evaluation, at equal samples seen.

    python benchmarks/eclip_against_clip.py DATASET [--seeds 7 8 9] [--split test] [--out result.json] [key=value ...]

Both arms of a seed see the same batches and start from the same weights. A figure is the mean over seeds of each query's
outcome, with a bootstrap interval over catalogs. Differences are paired by query. If every catalog has one text, both
losses are the same function and the curves must coincide.

Duration: six trainings and evaluations with the settings of `workloads/configs/eclip.yaml`. On 2 cores with grocery and
training.epochs=1, about 10 minutes (estimate).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from shoplens.cluster.loopback import start_own_ray_on_loopback

ARMS = ("clip", "eclip")
CONFIG = Path(__file__).parents[1] / "workloads/configs/eclip.yaml"


class CurveFile:
    """`train/loss` by step, as JSON lines."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    def __enter__(self) -> CurveFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def log(self, metrics: dict[str, float], step: int) -> None:
        if "train/loss" in metrics:
            self._file.write(json.dumps([step, metrics["train/loss"]]) + "\n")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("dataset", type=Path, help="folder of a dataset")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    arguments.add_argument("--split", default="test", help="split of the evaluation")
    arguments.add_argument("--cpus", type=int, default=4, help="logical CPUs of the local Ray")
    arguments.add_argument("--out", type=Path, help="file of the result (JSON); it is also printed")
    options, assignments = arguments.parse_known_args()

    start_own_ray_on_loopback()
    import ray

    ray.init(address="local", num_cpus=options.cpus, include_dashboard=False, logging_level="ERROR")
    results = {(arm, seed): run(options, arm, seed, assignments) for seed in options.seeds for arm in ARMS}
    result = {"command": " ".join(["python", *sys.argv]), "machine": machine(), **compare(results, options.seeds)}
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def run(options: argparse.Namespace, arm: str, seed: int, assignments: list[str]) -> tuple[np.ndarray, dict]:
    """Trains one arm. Returns its loss curve [steps] and its evaluation."""
    from shoplens.config import override, read_yaml
    from shoplens.recipes import eclip
    from shoplens.training.ray.trainer import train

    settings = [
        f"dataset={options.dataset.absolute()}",
        f"seed={seed}",
        f"arm={arm}",
        "training.log_every=1",
        "attribute_heads=0",
    ]
    recipe = eclip.EclipRecipe.load(override(read_yaml(CONFIG), [*settings, *assignments]), str(CONFIG))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        curves = functools.partial(CurveFile, folder / "curve")
        model, _ = train(recipe, name=f"{arm}-{seed}", storage=folder / "runs", open_curves=curves)
        points = dict(json.loads(line) for line in (folder / "curve").read_text().splitlines())
        recipe.save(model, folder / "package")
        evaluation, _ = eclip.EclipRecipe.evaluate(folder / "package", recipe.dataset, options.split, {"model": arm})
    for name in ("matching/image/recall@1", "matching/image/map", "text_to_image/recall@10"):
        print(f"{arm} seed {seed}: {name} {evaluation.metrics[name].value:.3f}", flush=True)
    return np.array([points[step] for step in sorted(points)]), evaluation


def compare(results: dict, seeds: list[int]) -> dict:
    """Figures of both arms, from the results by (arm, seed), for every metric with one outcome a query."""
    from shoplens.statistics.bootstrap import interval, paired_difference

    curves = [np.abs(results["clip", seed][0] - results["eclip", seed][0]).max() for seed in seeds]
    metrics = {}
    first = results["clip", seeds[0]][1]
    for name in first.outcomes:
        groups = first.groups[name]
        mean = {arm: np.mean([results[arm, seed][1].outcomes[name] for seed in seeds], axis=0) for arm in ARMS}
        figures = {
            arm: dict(zip(("value", "low", "high"), (outcome.mean(), *interval(outcome, groups)), strict=True))
            for arm, outcome in mean.items()
        }
        difference = paired_difference(mean["eclip"], mean["clip"], groups, 0)
        by_seed = {arm: [results[arm, seed][1].metrics[name].value for seed in seeds] for arm in ARMS}
        chance = first.metrics[name].chance
        metrics[name] = {**figures, "eclip_minus_clip": difference, "by_seed": by_seed, "chance": chance}
    return {"seeds": seeds, "largest_difference_of_loss_curves": float(max(curves)), "metrics": rounded(metrics)}


def rounded(tree: object) -> object:
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [rounded(value) for value in tree]
    return round(float(tree), 4) if isinstance(tree, float | np.floating) else tree


def machine() -> dict[str, object]:
    libraries = ("ray", "torch", "timm", "transformers", "numpy")
    return {
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in libraries},
    }


if __name__ == "__main__":
    main()
