"""A pretrained, locked image trunk against random weights on real catalogues, at equal processor time of training.

    python benchmarks/starts.py OUT --grocery DATASET --fashion DATASET --luma DATASET [--seconds 240]

Two models a shop: `random` (eclip.yaml, every weight trained) and `locked` (eclip_locked.yaml, a packaged trunk whose
vectors are computed once; its time includes that). Both learn titles and short queries with the same arm and seed. Each
gets as many epochs as fit into `--seconds` of processor time, by the time of a few steps that are measured first. Both
are judged on the shop's test split: retrieval, matching and short queries (`search`), which are made of the shop's own
names and titles. Differences are paired by query; intervals are over redrawn catalogs.

OUT receives `starts.json` and `starts.md`. Duration at the default size on 2 cores: about 15 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from small_models import CONFIGS, train

if TYPE_CHECKING:
    from shoplens.evaluation.results import Evaluation
    from shoplens.recipes.eclip import EclipRecipe

SHOPS = {
    "grocery": ("arm=eclip",),
    "fashion": ("arm=hard", "photo_views=1"),  # a second view of 2,542 photos would leave time for fewer epochs
    "luma": ("arm=hard",),
}
"""Shop -> settings of both models; those that one of them does not have are its own."""
ARMS = {"random": "eclip", "locked": "eclip_locked"}
METRICS = (
    "text_to_image/recall@1",
    "text_to_image/recall@10",
    "image_to_text/recall@10",
    "matching/image/recall@1",
    "search/precision@10",
    "search/ndcg@10",
)
TRIED_STEPS = 6

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait by spinning would spend processor time


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path, metavar="OUT", help="folder of the result")
    for shop in SHOPS:
        arguments.add_argument(f"--{shop}", metavar="DATASET", help=f"dataset imported from {shop}")
    arguments.add_argument("--seconds", type=float, default=240, help="processor time of each training")
    arguments.add_argument("--seed", type=int, default=7)
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = {}
    for shop, settings in SHOPS.items():
        if (dataset := getattr(options, shop)) is None:
            continue
        own = [f"dataset={Path(dataset).absolute()}", f"seed={options.seed}", *settings]
        runs = {arm: judged(arm, own, options.seconds) for arm in ARMS}
        results[shop] = compared(runs)
        print(markdown({shop: results[shop]}), flush=True)
        text = json.dumps({"seconds": options.seconds, "cores": os.cpu_count(), "shops": results}, indent=1)
        (options.out / "starts.json").write_text(text + "\n")
        (options.out / "starts.md").write_text(f"# A pretrained trunk against random weights\n\n{markdown(results)}")


def judged(arm: str, settings: list[str], seconds: float) -> tuple[dict[str, float], Evaluation]:
    """Epochs and seconds of a training of about `seconds`, and its evaluation."""
    from shoplens.recipes import eclip
    from shoplens.training import trunk_vectors

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        began = time.process_time()
        first = loaded(arm, settings, 1)
        vectors = None
        if first.config.photo_views is not None:
            vectors = first.trunk_file = trunk_vectors.compute(first, folder)
        prepared = time.process_time() - began
        epoch = seconds_of_an_epoch(first)
        epochs = max(1, round((seconds - prepared) / epoch))
        recipe = loaded(arm, settings, epochs)
        recipe.trunk_file = vectors
        began = time.process_time()
        model = train(recipe)
        took = prepared + time.process_time() - began
        recipe.save(model, folder / "package")
        overrides = {"tasks": ["retrieval", "matching", "search"]}
        evaluation, _ = eclip.EclipRecipe.evaluate(
            folder / "package", recipe.dataset, "test", {"model": arm}, overrides
        )
    return {"epochs": epochs, "seconds": took}, evaluation


def loaded(arm: str, settings: list[str], epochs: int) -> EclipRecipe:
    from shoplens.config import override, read_yaml
    from shoplens.recipes.eclip import EclipRecipe

    file = str(CONFIGS / f"{ARMS[arm]}.yaml")
    own = [setting for setting in settings if arm == "locked" or not setting.startswith("photo_views")]
    tree = override(read_yaml(file), [*own, f"training.epochs={epochs}", "attribute_heads=0"])
    return EclipRecipe.load(tree, file)


def seconds_of_an_epoch(recipe: EclipRecipe) -> float:
    from shoplens.training import loop
    from shoplens.training.batches import MicroBatches

    class Enough(Exception):
        """The tried steps are done."""

    times = []

    def count(_step: int, _rate: float) -> None:
        times.append(time.process_time())
        if len(times) == min(TRIED_STEPS, recipe.timeline.total):
            raise Enough

    with tempfile.TemporaryDirectory() as scratch, suppress(Enough):
        loop.train(recipe, MicroBatches(recipe, Path(scratch)).one_by_one, Path(scratch), progress=count)
    return float(np.median(np.diff(times))) * recipe.steps(0)


def compared(runs: dict[str, tuple[dict[str, float], Evaluation]]) -> dict[str, Any]:
    from shoplens.statistics.bootstrap import interval, paired_difference

    found: dict[str, Any] = {arm: about for arm, (about, _) in runs.items()}
    random, locked = (runs[arm][1] for arm in ARMS)
    found["metrics"] = {}
    for name in METRICS:
        if name not in random.outcomes:
            continue
        groups = random.groups[name]
        figures = {
            arm: [float(run.outcomes[name].mean()), *map(float, interval(run.outcomes[name], groups))]
            for arm, run in (("random", random), ("locked", locked))
        }
        found["metrics"][name] = {
            **figures,
            "difference": paired_difference(locked.outcomes[name], random.outcomes[name], groups, 0),
            "chance": random.metrics[name].chance,
            "queries": len(groups),
        }
    return found


def markdown(shops: dict[str, Any]) -> str:
    lines = ["| | random start | locked pretrained trunk | difference | chance | queries |", "| --- |" + " --- |" * 5]
    for shop, found in shops.items():
        spent = [f"{found[arm]['epochs']:.0f} epochs, {found[arm]['seconds']:.0f} s" for arm in ARMS]
        lines.append(f"| **{shop}** | {' | '.join(spent)} | | | |")
        for name, row in found["metrics"].items():
            value, low, high = row["difference"]
            lines.append(
                f"| {name} | {row['random'][0]:.3f} | {row['locked'][0]:.3f} ({row['locked'][1]:.3f} to "
                f"{row['locked'][2]:.3f}) | {value:+.3f} ({low:+.3f} to {high:+.3f}) | {row['chance']:.3f} | "
                f"{row['queries']} |"
            )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
