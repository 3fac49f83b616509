"""Ablation of e-CLIP: objective x negatives x near-duplicate filter, at equal samples seen, on shops of different kinds.

    python benchmarks/ablation.py OUT [--cases exchange style ...] [--luma DIR] [--grocery DIR]
        [--seeds 7 8 9] [--samples 16000] [--processes N] [key=value ...]

The baseline of each comparison is CLIP's objective (`clip`), uniform batches and all pairs. Runs of one case and seed see
the same number of samples and start from the same weights. Arms with the filter run only where it drops at least 1 % of
the training pairs.

The cases, and what is expected (e-CLIP specification 3.7):

    texts       grocery; each sample draws one of several text fields of its product             (--grocery)
    exchange    synthetic; any title fits any photo of its catalog: less noise, the same optimum
    style       synthetic; photo and title share the seller's style: clip learns the seller
    noise       style, with wrong catalog ids for 20 % of the offers
    duplicates  style, with 40 % of the offers repeated: the filter should help
    colours     luma; a catalog is a design, an offer is a colour: variants must stay separable    (--luma)

`matching` measures products found across sellers; `variants` measures a photo's own listing among the listings of its
catalog. The control, where clip and soft are the same function, is `benchmarks/eclip_against_clip.py` on grocery.

OUT receives `ablation.json`, `ablation.md` and one plot a case. They hold every arm, and every choice against its
baseline, paired by seed and query. Intervals are 95 %: a bootstrap over catalogs of the mean over seeds; for macro-F1
Student's t over seeds. `hardness` is the mean over every step of the last epoch.

Duration: 315 runs at the default size, about 3 hours on 2 cores (estimate). The folder --runs keeps each run's result, so an
interrupted command continues when it is repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from arms import (
    command,
    difference_cell,
    keep,
    machine,
    mean_over_seeds,
    paired_differences,
    run_all,
    table_head,
    value_cell,
    versions,
)
from small_models import CONFIGS, SMALL, eclip_recipe, pixels, train

OBJECTIVES = ("clip", "mask", "soft", "graded", "sigmoid")
NEGATIVES = ("uniform", "category", "mined")
FILTERS = ("keep", "drop")
SHOP = {"products": 2400, "seed": 11, "offers_per_catalog": 8, "image_size": 64, "val": 0.1, "test": 0.25}
SHOP |= {"catalog_noise": 0.0, "missing_catalog": 0.0, "impressions_per_product": 0.0}
SYNTHETIC = {
    "exchange": {"seller_style": 0.0},
    "style": {},
    "noise": {"catalog_noise": 0.2},
    "duplicates": {"duplicates": 0.4},
}
REAL = {"texts": "grocery", "colours": "luma"}
CASES = (*SYNTHETIC, *REAL)
SETTINGS = {"texts": ["training_texts=[[title,description],[category],[title_ko],[title_en]]"]}
SIGMOID = ("model.logit_bias=true", "model.initial_temperature=0.1", f"model.initial_logit_bias={-math.log(95):.2f}")
"""The initial bias is the log odds of a positive in a batch of 96. SigLIP's -10 is that of a batch of some ten thousand;
with -10 the sigmoid arms performed far worse."""
CHOICES = {
    **{
        f"{objective} for clip": ((objective, "uniform", "keep"), ("clip", "uniform", "keep"))
        for objective in OBJECTIVES[1:]
    },
    **{
        f"{negatives} for uniform, {objective}": ((objective, negatives, "keep"), (objective, "uniform", "keep"))
        for negatives in NEGATIVES[1:]
        for objective in ("clip", "soft")
    },
    **{
        f"repeats dropped, {objective}": ((objective, "uniform", "drop"), (objective, "uniform", "keep"))
        for objective in ("clip", "soft")
    },
}
"""Each choice: its arm and the arm that it is compared with, all else equal."""
SHOWN = (
    "matching/image/recall@1",
    "matching/text/recall@1",
    "matching/fused/recall@1",
    "matching/image/map",
    "variants/recall@1",
    "text_to_image/recall@10",
    "image_to_text/recall@10",
    "category/image/top1",
    "attributes/image/macro_f1",
)


@dataclass(frozen=True)
class Run:
    """One training, with everything that determines its result."""

    case: str
    dataset: str
    digest: str
    objective: str
    negatives: str
    duplicates: str
    seed: int
    samples: int
    settings: tuple[str, ...]

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    def file(self, folder: Path) -> Path:
        return folder / f"{self.key}.json"

    @property
    def arm(self) -> tuple[str, str, str]:
        return self.objective, self.negatives, self.duplicates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    for name in dict.fromkeys(REAL.values()):
        parser.add_argument(
            f"--{name}", type=Path, help=f"folder of the imported {name} dataset; without it, its cases are skipped"
        )
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--negatives", nargs="+", choices=NEGATIVES, default=list(NEGATIVES))
    parser.add_argument("--duplicates", nargs="+", choices=FILTERS, default=list(FILTERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--samples", type=int, default=16_000, help="samples that every run sees")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at the same time, one core each")
    parser.add_argument(
        "--runs", type=Path, default=Path("data/ablation"), help="folder of synthetic shops and run results"
    )
    options, settings = parser.parse_known_args()

    runs = sorted(planned(options, tuple(settings)), key=lambda run: run.seed)
    missing = [run for run in runs if not run.file(options.runs).exists()]
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them from earlier calls", flush=True)
    titled = [(f"{run.case} {' '.join(run.arm)} seed {run.seed}", (run, options.runs)) for run in missing]
    run_all(make, titled, options.processes)
    options.out.mkdir(parents=True, exist_ok=True)
    result = summary(runs, options)
    (options.out / "ablation.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "ablation.md").write_text(tables(result))
    for case in result["cases"]:
        plot(result, case, options.out / f"ablation_{case}.svg")
    print(f"{options.out}/ablation.md")


def planned(options: argparse.Namespace, settings: tuple[str, ...]) -> Iterator[Run]:
    for case in options.cases:
        source = getattr(options, REAL[case]) if case in REAL else synthetic(case, options.runs)
        if source is None:
            print(f"skips {case}: give its dataset with --{REAL[case]} DIR")
            continue
        from shoplens.datasets.format import Dataset

        shop = Dataset(str(source))
        dropped = share_dropped(shop)
        print(f"{case}: the filter drops {dropped:.1%} of the training pairs")
        filters = [name for name in options.duplicates if name == "keep" or dropped >= 0.01]
        own = (*SMALL, *SETTINGS.get(case, ()), *settings)
        for seed, objective, *arm in product(options.seeds, options.objectives, options.negatives, filters):
            of_arm = (*own, *SIGMOID) if objective == "sigmoid" else own
            yield Run(case, str(source), shop.digest, objective, *arm, seed, options.samples, of_arm)


def share_dropped(shop: Any) -> float:
    """Share of the training pairs that the near-duplicate filter drops."""
    from shoplens.config import override, read_yaml
    from shoplens.recipes.eclip import EclipRecipe

    config = str(CONFIGS / "eclip.yaml")
    tree = override(read_yaml(config), [f"dataset={shop.path}", *SMALL])
    all_pairs, kept = (
        len(EclipRecipe.load({**tree, "near_duplicates": name}, config).samples) for name in ("keep", "drop")
    )
    return 1 - kept / all_pairs


def synthetic(case: str, folder: Path) -> Path:
    from shoplens.synthetic import SyntheticShop, synthesize

    out = folder / f"shop_{case}"
    if not out.exists():
        synthesize(out, SyntheticShop(**{**SHOP, **SYNTHETIC[case]}), name=case)
    return out


def make(run: Run, folder: Path) -> str:
    """Trains and evaluates one run and keeps its result. Returns its first metric as text."""
    import torch

    torch.set_num_threads(1)
    settings = [
        f"dataset={run.dataset}",
        f"seed={run.seed}",
        f"objective.kind={run.objective}",
        f"negatives={run.negatives}",
        f"near_duplicates={run.duplicates}",
        *run.settings,
        "training.log_every=1",
    ]
    recipe = eclip_recipe(settings, run.samples)
    hardness = Hardness(recipe.timeline.first_step(recipe.training.epochs - 1))
    model = train(recipe, hardness)
    findings = measure(recipe, model, run.dataset)
    metrics: dict[str, dict[str, Any]] = {}
    for name in SHOWN:
        if name in findings.outcomes:
            metrics[name] = {"outcomes": findings.outcomes[name].tolist(), "groups": findings.groups[name].tolist()}
        elif name in findings.statistics:
            metrics[name] = {"value": findings.statistics[name].value}
        if name in metrics and name in findings.chance:
            metrics[name]["chance"] = findings.chance[name]
    result = {
        "run": asdict(run),
        "epochs": recipe.training.epochs,
        "samples_seen": recipe.timeline.total_samples,
        "hardness": hardness.mean,
        "metrics": metrics,
    }
    keep(run.file(folder), result)
    return f"{SHOWN[0]} {np.mean(metrics[SHOWN[0]]['outcomes']):.3f}" if SHOWN[0] in metrics else "done"


class Hardness:
    """Mean of `train/hardness` from a step on; the loop must log every step."""

    def __init__(self, first_step: int) -> None:
        self._first_step = first_step
        self._logged: list[float] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        if step >= self._first_step and "train/hardness" in metrics:
            self._logged.append(metrics["train/hardness"])

    @property
    def mean(self) -> float:
        """NaN if nothing was logged."""
        return float(np.mean(self._logged or [math.nan]))


def measure(recipe: Any, model: Any, dataset: str) -> Any:
    """Findings of the tasks on the test split. Heads learn from the training split; catalogs are the true ones."""
    from shoplens.datasets.format import Dataset
    from shoplens.datasets.samples import Samples
    from shoplens.evaluation.heads import probes
    from shoplens.evaluation.product_tasks import HELD_OUT, EvaluationConfig, embed_split
    from shoplens.evaluation.product_tasks import measure as measured
    from shoplens.packages.embedder import Embedder

    probes.PENALTIES = (probes.DEFAULT_PENALTY,)  # one penalty for all, so that heads are comparable

    shop, config = Dataset(dataset), recipe.config
    embedder = Embedder("run", config.model, config.preprocessing, recipe.tokenizer, model)

    def photos(samples: np.ndarray) -> np.ndarray:
        return embedder.encode_images(pixels(dataset, config.preprocessing.model_dump_json())[samples])

    def embed(split: str) -> Any:
        samples = Samples.of(shop, [split])
        split_of = embed_split(
            shop, samples, photos=photos, encode=embedder.encode_texts, text_fields=["title"], prompt="{leaf}"
        )
        return with_true_catalogs(split_of, shop)

    train_split = embed("train")
    held_out = train_split.catalog_of_product % HELD_OUT == 0
    settings = EvaluationConfig(tasks=("retrieval", "matching", "attributes", "categories"))
    learnt, development = train_split.keep(~held_out), train_split.keep(held_out)
    return measured(settings, embed("test"), learnt, development, embedder.encode_texts, ())


def with_true_catalogs(split: Any, shop: Any) -> Any:
    """The split under the true catalogs of a synthetic shop: wrong ids disturb training, not evaluation."""
    from dataclasses import replace

    if not Path(shop.path, "truth.parquet").exists():
        return split
    truth = shop.table("truth").to_pydict()
    number = dict(zip(truth["product_id"], truth["catalog_number"], strict=True))
    ids = shop.products["product_id"].to_pylist()
    rows = [int(shop.product_row[sample]) for sample in split.samples[np.unique(split.product, return_index=True)[1]]]
    return replace(split, catalog=np.array([number[ids[row]] for row in rows]))


def summary(runs: list[Run], options: argparse.Namespace) -> dict[str, Any]:
    """Figures of every arm and of every choice, by case and metric."""
    results: dict[str, dict[tuple[str, str, str], list[dict[str, Any]]]] = {}
    for run in runs:
        result = json.loads(run.file(options.runs).read_text())
        results.setdefault(run.case, {}).setdefault(run.arm, []).append(result)
    cases = {
        case: {
            " ".join(arm): {
                "hardness": round(float(np.mean([seed["hardness"] for seed in by_seed])), 4),
                "metrics": {
                    name: mean_over_seeds([seed["metrics"][name] for seed in by_seed]) for name in by_seed[0]["metrics"]
                },
            }
            for arm, by_seed in arms.items()
        }
        for case, arms in results.items()
    }
    choices = {
        case: {
            choice: paired_differences(*([seed["metrics"] for seed in arms[arm]] for arm in (new, old)))
            for choice, (new, old) in CHOICES.items()
            if new in arms and old in arms
        }
        for case, arms in results.items()
    }
    return {
        "command": command(),
        "seeds": options.seeds,
        "samples": options.samples,
        "machine": machine(),
        "versions": versions("torch", "timm", "transformers", "numpy"),
        "cases": cases,
        "choices": choices,
    }


def tables(result: dict[str, Any]) -> str:
    """Markdown: for each case the choices (bold: the interval excludes 0), then the arms (bold: the interval reaches the
    best value of the column)."""
    lines = [f"`{result['command']}`", ""]
    for case, arms in result["cases"].items():
        names = [name for name in SHOWN if all(name in arm["metrics"] for arm in arms.values())]
        lines += [f"## {case}", "", *table_head("chosen", *names)]
        for choice, metrics in result["choices"][case].items():
            lines.append(f"| {choice} | {' | '.join(difference_cell(metrics[name]) for name in names)} |")
        lines += ["", *table_head("objective", "negatives", "duplicates", *names, "hardness")]
        best = {name: max(arm["metrics"][name]["value"] for arm in arms.values()) for name in names}
        for key, arm in arms.items():
            cells = [value_cell(arm["metrics"][name], best[name]) for name in names]
            lines.append(f"| {' | '.join(key.split())} | {' | '.join(cells)} | {arm['hardness']:.3f} |")
        chance = [next(iter(arms.values()))["metrics"][name].get("chance") for name in names]
        by_chance = ["" if value is None else f"{value:.3f}" for value in chance]
        lines += [f"| chance | | | {' | '.join(by_chance)} | |", ""]
    return "\n".join(lines)


def plot(result: dict[str, Any], case: str, file: Path) -> None:
    """Scatter plot of the arms: products matched across sellers against variants distinguished."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    arms = result["cases"][case]
    matching, variants = "matching/image/recall@1", "variants/recall@1"
    if not all(name in arm["metrics"] for arm in arms.values() for name in (matching, variants)):
        matching, variants = "image_to_text/recall@10", "text_to_image/recall@10"
    figure, axes = pyplot.subplots(figsize=(7, 5.5))
    colours = dict(zip(OBJECTIVES, pyplot.get_cmap("tab10").colors, strict=False))
    markers = dict(zip(NEGATIVES, "osD", strict=True))
    for key, arm in arms.items():
        objective, negatives, duplicates = key.split()
        x, y = arm["metrics"][matching], arm["metrics"][variants]
        axes.errorbar(
            x["value"],
            y["value"],
            xerr=[[x["value"] - x["low"]], [x["high"] - x["value"]]],
            yerr=[[y["value"] - y["low"]], [y["high"] - y["value"]]],
            fmt=markers[negatives],
            color=colours[objective],
            markerfacecolor=colours[objective] if duplicates == "keep" else "white",
            elinewidth=0.5,
        )
    for objective in OBJECTIVES:
        axes.plot([], [], "o", color=colours[objective], label=objective)
    for negatives in NEGATIVES:
        axes.plot([], [], markers[negatives], color="grey", label=f"{negatives} negatives")
    axes.plot([], [], "o", color="grey", markerfacecolor="white", label="duplicates filtered")
    axes.set(xlabel=matching, ylabel=variants, title=f"{case}: mean of {len(result['seeds'])} seeds, 95 % intervals")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
