"""Which loss teaches what a product is, and how wide must its vectors be? Metric learning on classes never seen.

    python benchmarks/metric_arms.py OUT --grocery DIR --luma DIR [--seeds 7 8 9] [--start PACKAGE] [--processes N]
        [key=value ...]

Every arm starts from one e-CLIP, trained here on a synthetic shop, and sees the same photos for as many epochs. Each
loss first tries as many settings as the others (`TRIALS` x `RATES`), trained on a part of the base classes and judged
on the rest of them (`val`); the best, by the ranking that it trains, is then trained on all base classes with each seed
and judged on the held-out ones (`test`). Results are kept in --runs, so the command may be stopped and given again.
OUT gets `metric_arms.json` and `metric_arms.md`: means over the seeds, 95 % intervals over redrawn classes, and what
one arm has over another on the same photos.

    grocery   the classes marked `novel` by class_split are held out; a fifth of the `base` classes are `val`
    luma      a class is a design in its colours; 45 % of the photos are held out as whole classes, 15 % are `val`
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ablation import changed, gain, pixels, told, train
from clik_arms import base

CONFIG = Path(__file__).parents[1] / "workloads/configs/similar.yaml"
SHOP = {"products": 8_000, "seed": 31, "image_size": 64, "impressions_per_product": 0.0}
TOWER = (
    "model.image={name: resnet26, projection: none, options: {layers: [1, 1, 1, 1], channels: [16, 32, 64, 256], "
    "stem_type: deep, stem_width: 16, avg_down: true}}",
    "model.dim=1024",
)
"""A ResNet of 1.3 million weights whose vectors have 1,024 numbers, so that a head of 1,024 is no narrower in truth."""
SETTINGS = ("training.learning_rates={}", "model.head={dim: 128, prefixes: []}")
CASES = {
    "grocery": ("training.epochs=2",),
    "luma": ("training.epochs=12", "classes.splits={attribute: null, values: {}, shares: [0.4, 0.15, 0.45]}"),
}
RATES = {"grocery": (0.0002, 0.0005, 0.001), "luma": (0.0003, 0.001, 0.003)}
"""Learning rates tried: luma has fewer photos, and so fewer steps."""
TRIALS = {
    "hyperbolic": (
        "{kind: hyperbolic, clip_radius: 2.3, curvature: 0.1, temperature: 0.2}",
        "{kind: hyperbolic, clip_radius: null, curvature: 0.01, temperature: 1}",
    ),
    "spherical": ("{kind: spherical, temperature: 0.1}", "{kind: spherical, temperature: 0.2}"),
    "triplet": (
        "{kind: triplet, margin: 0.2, mining: hardest}",
        "{kind: triplet, margin: 0.2, mining: semihard}",
    ),
    "arcface": ("{kind: arcface, margin: 0.25, scale: 32}", "{kind: arcface, margin: 0.25, scale: 16}"),
}
"""Objectives tried, the published one first."""
WIDE = "spherical"
"""The loss of the arms with a head of 1,024, with the settings that its trials chose."""
ARMS: dict[str, tuple[str, ...]] = {
    "start": ("model.head.dim=1024",),
    **dict.fromkeys(TRIALS, ()),
    "wide": ("model.head.dim=1024",),
    "prefixes": ("model.head={dim: 1024, prefixes: [128, 256, 512]}",),
}
VECTORS = {
    "e-CLIP as it starts, 1,024": ("start", "similar"),
    "e-CLIP, a random projection to 128": ("start", "similar/first_128"),
    "e-CLIP, 128 principal components": ("start", "similar/pca_128"),
    "hyperbolic, distance in the ball": ("hyperbolic", "similar/ball"),
    "hyperbolic, cosine": ("hyperbolic", "similar"),
    "spherical": ("spherical", "similar"),
    "triplet": ("triplet", "similar"),
    "arcface": ("arcface", "similar"),
    "head of 1,024": ("wide", "similar"),
    "head of 1,024, its first 128": ("wide", "similar/first_128"),
    "head of 1,024, 128 principal components": ("wide", "similar/pca_128"),
    "with prefixes, all 1,024": ("prefixes", "similar"),
    "with prefixes, first 512": ("prefixes", "similar/first_512"),
    "with prefixes, first 256": ("prefixes", "similar/first_256"),
    "with prefixes, first 128": ("prefixes", "similar/first_128"),
    "with prefixes, 128 principal components": ("prefixes", "similar/pca_128"),
}
"""What is judged: an arm, and which of its vectors."""
PREFIX, BALL, START = "with prefixes, first 128", "hyperbolic, distance in the ball", "e-CLIP as it starts, 1,024"
LOSSES = (BALL, "spherical", "triplet", "arcface")
OVER = [
    *combinations(LOSSES, 2),
    (BALL, "hyperbolic, cosine"),
    *[(loss, START) for loss in LOSSES],
    (PREFIX, "with prefixes, all 1,024"),
    (PREFIX, "with prefixes, 128 principal components"),
    *[(PREFIX, f"head of 1,024{part}") for part in ("", ", its first 128", ", 128 principal components")],
    (PREFIX, "spherical"),
    (PREFIX, BALL),
    ("spherical", "head of 1,024"),
]
"""What is compared, vectors with other vectors of the same photos."""
RECALLS = ("recall@1", "recall@10")


class Case(NamedTuple):
    name: str
    dataset: str
    digest: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One training: everything that decides its result. It learns from the splits that it is not judged on."""

    case: Case
    start: str
    arm: str
    seed: int
    judged: str
    settings: tuple[str, ...]

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for name in CASES:
        parser.add_argument(f"--{name}", type=Path, help=f"the imported {name} dataset; left out without")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--base-samples", type=int, default=50_000, help="photos that the e-CLIP is trained on")
    parser.add_argument("--start", type=Path, help="a package to start from, in place of that e-CLIP")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=Path, default=Path("data/metric_arms"), help="where results are kept")
    options, settings = parser.parse_known_args()

    cases = [case(name, getattr(options, name)) for name in CASES if getattr(options, name)]
    if not cases:
        parser.error(f"name a dataset: {' or '.join(f'--{name} DIR' for name in CASES)}")
    start = str(options.start or started(options.runs, options.base_samples))

    def run(of: Case, arm: str, seed: int, judged: str, own: Iterable[str]) -> Run:
        return Run(of, start, arm, seed, judged, (*SETTINGS, *of.settings, *own, *settings))

    trials = {
        (of.name, kind): {
            own: run(of, kind, options.seeds[0], "val", own)
            for own in [
                (f"objective={objective}", f"training.learning_rate={rate}")
                for objective in TRIALS[kind]
                for rate in RATES[of.name]
            ]
        }
        for of in cases
        for kind in TRIALS
    }
    found = made([one for tried in trials.values() for one in tried.values()], options)
    tried = {of: {own: chosen_by(found[one]) for own, one in runs.items()} for of, runs in trials.items()}
    chosen = {of: max(values, key=lambda own: values[own]) for of, values in tried.items()}
    final = {
        (of.name, arm): [
            run(of, arm, seed, "test", (*chosen[of.name, arm if arm in TRIALS else WIDE], *own))
            for seed in options.seeds
        ]
        for of in cases
        for arm, own in ARMS.items()
    }
    found = made([one for by_seed in final.values() for one in by_seed], options)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "seeds": options.seeds,
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("torch", "timm", "pytorch-metric-learning", "numpy")},
        "cases": {
            of.name: {
                "trials": {
                    kind: [
                        {"settings": own, "recall@1": value, "chosen": own == chosen[of.name, kind]}
                        for own, value in tried[of.name, kind].items()
                    ]
                    for kind in TRIALS
                },
                **summary({arm: [found[one] for one in final[of.name, arm]] for arm in ARMS}),
            }
            for of in cases
        },
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "metric_arms.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "metric_arms.md").write_text(tables(result))
    print(options.out / "metric_arms.md")


def case(name: str, dataset: Path) -> Case:
    from shoplens.datasets.format import Dataset

    shop, settings = Dataset(str(dataset)), CASES[name]
    if name == "grocery":
        settings = (*settings, f"classes.splits={json.dumps(novel_classes(shop))}")
    return Case(name, str(dataset), shop.digest, settings)


def novel_classes(shop: Any) -> dict[str, Any]:
    """Splits by the label of the class: `novel` ones test, a fifth of the others val, drawn."""
    said = [dict(attributes) for attributes in shop.products["attributes"].to_pylist()]
    labels = {
        kind: sorted(a["fine_label"][0] for a in said if a["class_split"] == [kind]) for kind in ("base", "novel")
    }
    drawn = np.random.default_rng(0).permutation(labels["base"]).tolist()
    val = len(drawn) // 5
    of_base = {label: "val" if place < val else "train" for place, label in enumerate(drawn)}
    return {"attribute": "fine_label", "values": of_base | dict.fromkeys(labels["novel"], "test"), "shares": None}


def started(folder: Path, samples: int) -> Path:
    """The e-CLIP that every arm starts from, made once."""
    from shoplens.synthetic import SyntheticShop, synthesize

    decisive = hashlib.sha256(repr((SHOP, TOWER, samples)).encode()).hexdigest()[:8]
    shop, package = folder / "shop", folder / f"eclip-{decisive}"
    if not package.exists():
        if not shop.exists():
            synthesize(shop, SyntheticShop.of(**SHOP), name="start")
        print(f"e-CLIP: {base(str(shop), package, samples, *TOWER)}", flush=True)
    return package


def made(runs: list[Run], options: argparse.Namespace) -> dict[Run, dict[str, Any]]:
    """What each run found; those that are not kept are made."""
    waiting = [run for run in runs if not (options.runs / f"{run.key}.json").exists()]
    print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them made before", flush=True)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(make, run, options.runs): run for run in waiting}
        for number, done in enumerate(as_completed(jobs), 1):
            run = jobs[done]
            told_of = f"{run.case.name} {run.arm} seed {run.seed} on {run.judged}"
            print(f"{number}/{len(waiting)} {told_of}: {done.result()}", flush=True)
    return {run: json.loads((options.runs / f"{run.key}.json").read_text()) for run in runs}


def make(run: Run, folder: Path) -> str:
    """Trains and judges one run, and keeps what it found."""
    import torch

    from shoplens.config import override, read_yaml
    from shoplens.curation.product_clusters import splits_of
    from shoplens.evaluation import metric_space
    from shoplens.recipes import similar
    from shoplens.recipes.similar import SimilarEmbedder

    torch.set_num_threads(1)
    learnt = ["train"] if run.judged == "val" else ["train", "val"]
    own = [f"dataset={run.case.dataset}", f"seed={run.seed}", f"model.start_from={run.start}", f"splits={learnt}"]
    tree = {name: part for name, part in read_yaml(CONFIG).items() if name != "preprocessing"}
    recipe = similar.SimilarRecipe.load(override(tree, [*own, *run.settings]), str(CONFIG))
    config = recipe.config
    if run.arm == "start":
        torch.manual_seed(run.seed)
        model = recipe.build().eval()
    else:
        with tempfile.TemporaryDirectory() as scratch:
            model, _ = train(recipe, Path(scratch))
    embedder = SimilarEmbedder("arm", config.model, config.preprocessing, model)
    split = splits_of(recipe.dataset, recipe.clusters.component, config.classes.splits, config.splits)
    photos = np.flatnonzero(split == run.judged)
    pictures = pixels(run.case.dataset, config.preprocessing.model_dump_json())
    widths = sorted({*config.model.head.widths, 128})
    narrowed = recipe.photos if run.judged == "test" and widths[0] < widths[-1] else photos[:0]
    found = metric_space.judge(
        embedder.encode_rows(pictures[photos]),
        recipe.clusters.label[photos],
        config.objective,
        widths,
        embedder.dim,
        embedder.encode_rows(pictures[narrowed]),
    )
    result = {
        "run": asdict(run),
        "photos": {"learnt": len(recipe.photos), "judged": len(photos)},
        "classes": {"learnt": recipe.classes, "judged": len(np.unique(found.groups["similar/recall@1"]))},
        "clipped_share": found.about.get("clipped_share"),
        "relative_delta": found.about["relative_delta"],
        "metrics": {
            name: {"outcomes": outcomes.tolist(), "groups": found.groups[name].tolist(), "chance": found.chance[name]}
            for name, outcomes in found.outcomes.items()
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{run.key}.partial"
    partial.write_text(json.dumps(result))
    partial.rename(folder / f"{run.key}.json")
    return f"R@1 {np.mean(found.outcomes['similar/recall@1']):.3f}"


def chosen_by(result: dict[str, Any]) -> float:
    """R@1 by the ranking that the loss trains: distance in the ball where there is one, else cosine."""
    metrics = result["metrics"]
    name = "similar/ball/recall@1"
    return round(float(np.mean(metrics[name if name in metrics else "similar/recall@1"]["outcomes"])), 4)


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    from shoplens.statistics.bootstrap import interval

    def judged(vectors: str) -> list[dict[str, Any]]:
        arm, measure = VECTORS[vectors]
        return [{"metrics": {k: seed["metrics"][f"{measure}/{k}"] for k in RECALLS}} for seed in found[arm]]

    first = found["start"][0]
    return {
        "photos": first["photos"],
        "classes": first["classes"],
        "vectors": {
            name: {k: told([seed["metrics"][k] for seed in judged(name)], interval) for k in RECALLS}
            for name in VECTORS
        },
        "over": [{"new": new, "old": old, **changed(judged(new), judged(old), interval)} for new, old in OVER],
        "clipped_share": {
            arm: [seed["clipped_share"] for seed in by_seed]
            for arm, by_seed in found.items()
            if by_seed[0]["clipped_share"] is not None
        },
        "relative_delta": {arm: [seed["relative_delta"] for seed in by_seed] for arm, by_seed in found.items()},
    }


def tables(result: dict[str, Any]) -> str:
    """Markdown: R@K of the vectors, the best of each column in bold with those whose interval reaches its value; what one
    has over another, in bold where the interval leaves out 0; the trials, the chosen in bold."""
    cases = result["cases"]
    heads = [f"{name}, {k.replace('recall', 'R')}" for name in cases for k in RECALLS]
    lines = [f"`{result['command']}`", "", "| vectors | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 1) + "|"]
    best = {
        (name, k): max(v[k]["value"] for v in of["vectors"].values()) for name, of in cases.items() for k in RECALLS
    }
    for vectors in VECTORS:
        cells = []
        for name, k in best:
            metric = cases[name]["vectors"][vectors][k]
            cell = f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"
            cells.append(f"**{cell}**" if metric["high"] >= best[name, k] else cell)
        lines.append(f"| {vectors} | {' | '.join(cells)} |")
    chance = [next(iter(of["vectors"].values()))[k]["chance"] for of in cases.values() for k in RECALLS]
    lines += [f"| chance | {' | '.join(f'{value:.3f}' for value in chance)} |", ""]
    lines += ["| | over | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 2) + "|"]
    for place, (new, old) in enumerate(OVER):
        cells = [gain(of["over"][place][k]) for of in cases.values() for k in RECALLS]
        lines.append(f"| {new} | {old} | {' | '.join(cells)} |")
    for name, of in cases.items():
        lines += ["", f"| {name}, tried | R@1 on `val` |", "| --- | --- |"]
        for trial in [trial for tried in of["trials"].values() for trial in tried]:
            cell = f"{trial['recall@1']:.3f}"
            said = " ".join(setting.partition("=")[2] for setting in trial["settings"])
            lines.append(f"| `{said}` | {f'**{cell}**' if trial['chosen'] else cell} |")
    lines.append("")
    for name, of in cases.items():
        photos, classes = of["photos"], of["classes"]
        lines.append(
            f"- {name}: {photos['learnt']:,} photos of {classes['learnt']} classes learnt from, {photos['judged']:,} with "
            f"{classes['judged']} classes judged; relative hyperbolicity by seed: {by_seed(of['relative_delta'])}; share "
            f"of the judged that is clipped: {by_seed(of['clipped_share'])}"
        )
    return "\n".join([*lines, ""])


def by_seed(figures: dict[str, list[float]]) -> str:
    return ", ".join(f"{arm} {' '.join(f'{value:.2f}' for value in values)}" for arm, values in figures.items())


if __name__ == "__main__":
    main()
