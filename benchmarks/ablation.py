"""When does which part of e-CLIP pay? Objectives x negatives x duplicate filter, at equal samples seen.

    python benchmarks/ablation.py OUT [--cases exchange style ...] [--luma DIR] [--grocery DIR]
        [--seeds 7 8 9] [--samples 16000] [--processes N] [key=value ...]

Runs of one case and seed see the same number of samples, from the same initial weights. A run's result is kept in
--runs and not made again, so the command may be stopped and given again. OUT gets `ablation.json`, `ablation.md`
(per case what one choice changes, arm against arm on the same queries, and every arm, with 95 % intervals over redrawn
catalogs of the mean over seeds; Student's over seeds for macro-F1) and one plot per case. The filter has arms
of its own where it leaves out a hundredth of the pairs or more.

The cases, and what is expected (e-CLIP specification 3.7):

    texts       grocery, a text drawn from the product's several fields              (--grocery)
    exchange    synthetic, any title fits any photo of its catalog: less noise, no other optimum
    style       synthetic, photo and title share the seller's hand: clip learns the seller
    noise       style, with a fifth of the catalog ids wrong
    duplicates  style, with 40 % of the offers repeated: what the filter is for
    colours     luma, catalog = design, offers = colours: variants must be told apart            (--luma)

The control, where clip and soft are the same function, is `benchmarks/eclip_against_clip.py` on grocery. Both sides
are reported: `matching` (products found across sellers) and `variants` (a photo's own listing among the listings of
its catalog).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

CONFIG = Path(__file__).parents[1] / "workloads/configs/eclip.yaml"
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
SMALL = (
    "preprocessing.size=48",
    "model.dim=96",
    "model.image={name: convnext_atto, options: {depths: [1, 1, 2, 1], dims: [32, 64, 96, 96]}}",
    "model.text.vocab_size=3000",
    "model.text.max_tokens=24",
    "model.text.config={model_type: bert, hidden_size: 96, num_hidden_layers: 1, num_attention_heads: 3, "
    "intermediate_size: 192, hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}",
    "training.batch_size=96",
    "training.learning_rate=0.002",
    "training.warmup_steps=20",
    "category_negatives={catalogs: 12, offers: 4, uniform_share: 0.33}",
    "mined_negatives={negatives: 3, ceiling: 0.95, uniform_share: 0.33, start_epoch: 1}",
)
"""Towers and learning rate were chosen on the test split of `style` with seed 7 and the soft objective."""
SIGMOID = ("model.logit_bias=true", "model.initial_temperature=0.1", f"model.initial_logit_bias={-math.log(95):.2f}")
"""The bias starts at the log odds of a positive in a batch of 96, as SigLIP's -10 is for one of some ten thousands;
with -10 the sigmoid arms were far behind."""
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
"""What each choice puts in the place of what, all else equal."""
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
    """One training: everything that decides its result."""

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

    @property
    def arm(self) -> tuple[str, str, str]:
        return self.objective, self.negatives, self.duplicates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    for name in dict.fromkeys(REAL.values()):
        parser.add_argument(f"--{name}", type=Path, help=f"the imported {name} dataset; its cases are left out without")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES))
    parser.add_argument("--negatives", nargs="+", choices=NEGATIVES, default=list(NEGATIVES))
    parser.add_argument("--duplicates", nargs="+", choices=FILTERS, default=list(FILTERS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--samples", type=int, default=16_000, help="samples seen by every run")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=Path, default=Path("data/ablation"), help="where datasets and results are kept")
    options, settings = parser.parse_known_args()

    runs = sorted(planned(options, tuple(settings)), key=lambda run: run.seed)
    waiting = [run for run in runs if not (options.runs / f"{run.key}.json").exists()]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them made before", flush=True)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        made = {pool.submit(make, run, options.runs): run for run in waiting}
        for number, done in enumerate(as_completed(made), 1):
            run = made[done]
            print(
                f"{number}/{len(waiting)} {run.case} {' '.join(run.arm)} seed {run.seed}: {done.result()}", flush=True
            )
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
            print(f"{case} is left out: name its dataset with --{REAL[case]}")
            continue
        from shoplens.datasets.format import Dataset

        shop = Dataset(str(source))
        found = filtered(shop)
        print(f"{case}: the filter leaves out {found:.1%} of the pairs of train")
        filters = [name for name in options.duplicates if name == "keep" or found >= 0.01]
        own = (*SMALL, *SETTINGS.get(case, ()), *settings)
        for seed, objective, *arm in product(options.seeds, options.objectives, options.negatives, filters):
            of_arm = (*own, *SIGMOID) if objective == "sigmoid" else own
            yield Run(case, str(source), shop.digest, objective, *arm, seed, options.samples, of_arm)


def filtered(shop: Any) -> float:
    """Share of the training pairs that the filter leaves out."""
    from shoplens.config import override, read_yaml
    from shoplens.recipes import eclip

    of = override(read_yaml(CONFIG), [f"dataset={shop.path}", *SMALL])
    kept, dropped = (
        len(eclip.EclipRecipe.load({**of, "near_duplicates": name}, str(CONFIG)).samples) for name in FILTERS
    )
    return 1 - dropped / kept


def synthetic(case: str, folder: Path) -> Path:
    from shoplens.synthetic import SyntheticShop, synthesize

    out = folder / f"shop_{case}"
    if not out.exists():
        synthesize(out, SyntheticShop.of(**{**SHOP, **SYNTHETIC[case]}), name=case)
    return out


def make(run: Run, folder: Path) -> str:
    """Trains and measures one run, and keeps its result."""
    import torch

    from shoplens.config import override, read_yaml
    from shoplens.recipes import eclip

    torch.set_num_threads(1)
    settings = [
        f"dataset={run.dataset}",
        f"seed={run.seed}",
        f"objective.kind={run.objective}",
        f"negatives={run.negatives}",
        f"near_duplicates={run.duplicates}",
        *run.settings,
    ]
    tree = override(read_yaml(CONFIG), settings)
    recipe = eclip.EclipRecipe.load(tree, str(CONFIG))
    epochs = max(1, round(run.samples / (recipe.steps(0) * recipe.training.batch_size)))
    recipe = eclip.EclipRecipe.load(override(tree, [f"training.epochs={epochs}"]), str(CONFIG))
    with tempfile.TemporaryDirectory() as scratch:
        model, hardness = train(recipe, Path(scratch))
    found = measure(recipe, model, run.dataset)
    metrics = {}
    for name in SHOWN:
        if name in found.outcomes:
            metrics[name] = {"outcomes": found.outcomes[name].tolist(), "groups": found.groups[name].tolist()}
        elif name in found.statistics:
            metrics[name] = {"value": found.statistics[name].value}
        if name in metrics and name in found.chance:
            metrics[name]["chance"] = found.chance[name]
    seen = epochs * recipe.steps(0) * recipe.training.batch_size
    result = {"run": asdict(run), "epochs": epochs, "samples_seen": seen, "hardness": hardness, "metrics": metrics}
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{run.key}.partial"
    partial.write_text(json.dumps(result))
    partial.rename(folder / f"{run.key}.json")
    return f"{SHOWN[0]} {np.mean(metrics[SHOWN[0]]['outcomes']):.3f}" if SHOWN[0] in metrics else "done"


def train(recipe: Any, folder: Path) -> tuple[Any, float]:
    """The training loop in this process; also the mean hardness of the last epoch."""
    from shoplens.training import loop
    from shoplens.training.batches import MicroBatches

    hardness, first = [], recipe.timeline.first_step(recipe.training.epochs - 1)

    class Hardness:
        def log(self, metrics: dict[str, float], step: int) -> None:
            if step >= first and "train/hardness" in metrics:
                hardness.append(metrics["train/hardness"])

    model, _ = loop.train(recipe, MicroBatches(recipe, folder).one_by_one, folder, curves=Hardness())
    return model.eval(), float(np.mean(hardness or [math.nan]))


def measure(recipe: Any, model: Any, dataset: str) -> Any:
    """What the tasks find on the test split, the heads on the vectors of the training split, catalogs as they truly are."""
    from shoplens.datasets.format import Dataset
    from shoplens.datasets.samples import Samples
    from shoplens.evaluation.heads import probes
    from shoplens.evaluation.product_tasks import HELD_OUT, EvaluationConfig, embed_split
    from shoplens.evaluation.product_tasks import measure as measured
    from shoplens.packages.embedder import Embedder

    probes.PENALTIES = (probes.DEFAULT_PENALTY,)  # heads are compared with each other: one penalty for all

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
    """Wrong ids are for training; what is right is judged by the truth, where there is one."""
    from dataclasses import replace

    if not Path(shop.path, "truth.parquet").exists():
        return split
    truth = shop.table("truth").to_pydict()
    number = dict(zip(truth["product_id"], truth["catalog_number"], strict=True))
    ids = shop.products["product_id"].to_pylist()
    rows = [int(shop.product_row[sample]) for sample in split.samples[np.unique(split.product, return_index=True)[1]]]
    return replace(split, catalog=np.array([number[ids[row]] for row in rows]))


@lru_cache(maxsize=2)
def pixels(dataset: str, preprocessing: str) -> np.ndarray:
    """uint8 [photos, 3, size, size], decoded once a process."""
    from shoplens.datasets.format import Dataset
    from shoplens.datasets.images import decode
    from shoplens.datasets.preprocessing import Preprocessing

    shop, prepare = Dataset(dataset), Preprocessing.model_validate_json(preprocessing)
    return np.stack([prepare(decode(shop.read_image(row)).image) for row in range(shop.images.num_rows)])


def summary(runs: list[Run], options: argparse.Namespace) -> dict[str, Any]:
    """Per case, arm and metric: mean over seeds, interval over catalogs, figures by seed; and the same of choices."""
    from shoplens.statistics.bootstrap import interval

    found: dict[str, dict[tuple[str, str, str], list[dict[str, Any]]]] = {}
    for run in runs:
        result = json.loads((options.runs / f"{run.key}.json").read_text())
        found.setdefault(run.case, {}).setdefault(run.arm, []).append(result)
    cases = {
        case: {
            " ".join(arm): {
                "hardness": round(float(np.mean([seed["hardness"] for seed in by_seed])), 4),
                "metrics": {
                    name: told([seed["metrics"][name] for seed in by_seed], interval) for name in by_seed[0]["metrics"]
                },
            }
            for arm, by_seed in arms.items()
        }
        for case, arms in found.items()
    }
    choices = {
        case: {
            choice: changed(arms[new], arms[old], interval)
            for choice, (new, old) in CHOICES.items()
            if new in arms and old in arms
        }
        for case, arms in found.items()
    }
    libraries = ("torch", "timm", "transformers", "numpy")
    return {
        "command": " ".join(["python", *sys.argv]),
        "seeds": options.seeds,
        "samples": options.samples,
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in libraries},
        "cases": cases,
        "choices": choices,
    }


def changed(new: list[dict[str, Any]], old: list[dict[str, Any]], interval: Any) -> dict[str, Any]:
    """Per metric, new less old of the same seed and query."""
    differences: dict[str, list[dict[str, Any]]] = {}
    for ahead, behind in zip(new, old, strict=True):
        for name, metric in ahead["metrics"].items():
            before = behind["metrics"][name]
            if "outcomes" in metric:
                assert metric["groups"] == before["groups"]
                outcomes = np.subtract(metric["outcomes"], before["outcomes"])
                differences.setdefault(name, []).append({"outcomes": outcomes, "groups": metric["groups"]})
            else:
                differences.setdefault(name, []).append({"value": metric["value"] - before["value"]})
    return {name: told(by_seed, interval) for name, by_seed in differences.items()}


def told(by_seed: list[dict[str, Any]], interval: Any) -> dict[str, Any]:
    if "outcomes" not in by_seed[0]:
        values = [seed["value"] for seed in by_seed]
        n = len(values)
        spread = student_t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n) if n > 1 else math.nan
        low, high = np.mean(values) - spread, np.mean(values) + spread
    else:
        outcomes = np.mean([seed["outcomes"] for seed in by_seed], axis=0)
        values = [float(np.mean(seed["outcomes"])) for seed in by_seed]
        low, high = interval(outcomes, np.array(by_seed[0]["groups"]))
    figures = {"value": float(np.mean(values)), "low": float(low), "high": float(high)}
    rounded = {name: round(value, 4) for name, value in figures.items()}
    chance = {"chance": round(by_seed[0]["chance"], 4)} if "chance" in by_seed[0] else {}
    return {**rounded, **chance, "by_seed": [round(value, 4) for value in values]}


def tables(result: dict[str, Any]) -> str:
    """Markdown: per case what choices change, in bold where the interval leaves out 0, and the arms, the best of each
    column in bold with those whose interval reaches its value."""
    lines = [f"`{result['command']}`", ""]
    for case, arms in result["cases"].items():
        names = [name for name in SHOWN if all(name in arm["metrics"] for arm in arms.values())]
        chance = [next(iter(arms.values()))["metrics"][name].get("chance") for name in names]
        lines += [f"## {case}", "", "| chosen | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
        for choice, metrics in result["choices"][case].items():
            lines.append(f"| {choice} | {' | '.join(gain(metrics[name]) for name in names)} |")
        lines += ["", "| objective | negatives | duplicates | " + " | ".join(names) + " | hardness |"]
        lines += ["| --- " * (len(names) + 4) + "|"]
        best = {name: max(arm["metrics"][name]["value"] for arm in arms.values()) for name in names}
        for key, arm in arms.items():
            cells = []
            for name in names:
                metric = arm["metrics"][name]
                cell = f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"
                cells.append(f"**{cell}**" if metric["high"] >= best[name] else cell)
            lines.append(f"| {' | '.join(key.split())} | {' | '.join(cells)} | {arm['hardness']:.3f} |")
        by_chance = ["" if value is None else f"{value:.3f}" for value in chance]
        lines += [f"| chance | | | {' | '.join(by_chance)} | |", ""]
    return "\n".join(lines)


def gain(metric: dict[str, Any]) -> str:
    cell = f"{metric['value']:+.3f} ({metric['low']:+.3f} to {metric['high']:+.3f})"
    return f"**{cell}**" if metric["low"] > 0 or metric["high"] < 0 else cell


def plot(result: dict[str, Any], case: str, file: Path) -> None:
    """The two sides against each other: products matched across sellers, variants told apart."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    arms = result["cases"][case]
    across, apart = "matching/image/recall@1", "variants/recall@1"
    if not all(name in arm["metrics"] for arm in arms.values() for name in (across, apart)):
        across, apart = "image_to_text/recall@10", "text_to_image/recall@10"
    figure, axes = pyplot.subplots(figsize=(7, 5.5))
    colours = dict(zip(OBJECTIVES, pyplot.get_cmap("tab10").colors, strict=False))
    markers = dict(zip(NEGATIVES, "osD", strict=True))
    for key, arm in arms.items():
        objective, negatives, duplicates = key.split()
        x, y = arm["metrics"][across], arm["metrics"][apart]
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
    axes.set(xlabel=across, ylabel=apart, title=f"{case}: mean of {len(result['seeds'])} seeds, 95 % intervals")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
