"""Metric-learning losses and vector widths, compared on photos of classes that no arm was trained on.

    python benchmarks/metric_arms.py OUT --grocery DIR --luma DIR [--seeds 7 8 9] [--start PACKAGE] [--processes N]
        [key=value ...]

The losses (hyperbolic, spherical, triplet, ArcFace) are compared with each other and with the e-CLIP that all arms start
from; narrow heads with a wide head, its prefixes and its principal components. The e-CLIP is trained here on a synthetic
shop. All arms see the same photos for the same number of epochs.

Each loss has the same budget of settings (`TRIALS` x `RATES`). A trial trains on a part of the base classes and is
evaluated on the others (`val`), by the ranking that its loss trains. The best setting is trained on all base classes with
each seed and evaluated on the held-out classes (`test`).

    grocery   the classes that class_split marks `novel` are held out; a fifth of the `base` classes is `val`
    luma      a class is a design in its colours; 45 % of the photos are held out by whole classes, 15 % are `val`

OUT receives `metric_arms.json` and `metric_arms.md`: means over seeds with 95 % intervals, a bootstrap over classes, and
paired differences between arms on the same photos.

Duration at the default size: half an hour on one core; runs share 2 cores. The folder --runs keeps the e-CLIP and
each run's result, so an interrupted command continues when it is repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

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
from small_models import CONFIGS, pixels, train, train_eclip

SHOP = {"products": 8_000, "seed": 31, "image_size": 64, "impressions_per_product": 0.0}
TOWER = (
    "model.image={name: resnet26, projection: none, options: {layers: [1, 1, 1, 1], channels: [16, 32, 64, 256], "
    "stem_type: deep, stem_width: 16, avg_down: true}}",
    "model.dim=1024",
)
"""A ResNet of 1.3 million weights with vectors of 1,024 numbers, so that the tower does not limit a head of 1,024."""
SETTINGS = ("training.learning_rates={}", "model.head={dim: 128, prefixes: []}")
CASES = {
    "grocery": ("training.epochs=2",),
    "luma": ("training.epochs=12", "classes.splits={attribute: null, values: {}, shares: [0.4, 0.15, 0.45]}"),
}
RATES = {"grocery": (0.0002, 0.0005, 0.001), "luma": (0.0003, 0.001, 0.003)}
"""Learning rates of the trials. Luma has fewer photos and so fewer steps."""
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
"""Objectives of the trials, the published one first."""
WIDE = "spherical"
"""The loss of the arms with a head of 1,024; they use the best setting of its trials."""
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
"""Evaluated vectors: title -> (arm, prefix of the metric names)."""
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
"""Paired comparisons (new, old), on the same photos."""
RECALLS = ("recall@1", "recall@10")


class Case(NamedTuple):
    name: str
    dataset: str
    digest: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One training, with everything that determines its result.

    judged   the split that is evaluated; `val`: trained on `train`; `test`: trained on `train` and `val`
    """

    case: Case
    start: str
    arm: str
    seed: int
    judged: str
    settings: tuple[str, ...]

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    def file(self, folder: Path) -> Path:
        return folder / f"{self.key}.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the results")
    for name in CASES:
        parser.add_argument(
            f"--{name}", type=Path, help=f"folder of the imported {name} dataset; without it, it is skipped"
        )
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--base-samples", type=int, default=50_000, help="training photos that the e-CLIP sees")
    parser.add_argument("--start", type=Path, help="package to start from, instead of that e-CLIP")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at the same time, one core each")
    parser.add_argument(
        "--runs", type=Path, default=Path("data/metric_arms"), help="folder of the e-CLIP and run results"
    )
    options, settings = parser.parse_known_args()

    cases = [case(name, getattr(options, name)) for name in CASES if getattr(options, name)]
    if not cases:
        parser.error(f"no dataset is given: add {' or '.join(f'--{name} DIR' for name in CASES)}")
    start = str(options.start or start_package(options.runs, options.base_samples))

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
    results = results_of([one for by_setting in trials.values() for one in by_setting.values()], options)
    tried = {of: {own: trained_recall(results[one]) for own, one in runs.items()} for of, runs in trials.items()}
    chosen = {of: max(values, key=lambda own: values[own]) for of, values in tried.items()}
    final = {
        (of.name, arm): [
            run(of, arm, seed, "test", (*chosen[of.name, arm if arm in TRIALS else WIDE], *own))
            for seed in options.seeds
        ]
        for of in cases
        for arm, own in ARMS.items()
    }
    results = results_of([one for by_seed in final.values() for one in by_seed], options)
    result = {
        "command": command(),
        "seeds": options.seeds,
        "machine": machine(),
        "versions": versions("torch", "timm", "pytorch-metric-learning", "numpy"),
        "cases": {
            of.name: {
                "trials": {
                    kind: [
                        {"settings": own, "recall@1": value, "chosen": own == chosen[of.name, kind]}
                        for own, value in tried[of.name, kind].items()
                    ]
                    for kind in TRIALS
                },
                **summary({arm: [results[one] for one in final[of.name, arm]] for arm in ARMS}),
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
    """`classes.splits` by class label: `novel` classes are test, a random fifth of the others val."""
    rows = [dict(attributes) for attributes in shop.products["attributes"].to_pylist()]
    labels = {
        kind: sorted(a["fine_label"][0] for a in rows if a["class_split"] == [kind]) for kind in ("base", "novel")
    }
    drawn = np.random.default_rng(0).permutation(labels["base"]).tolist()
    val = len(drawn) // 5
    of_base = {label: "val" if place < val else "train" for place, label in enumerate(drawn)}
    return {"attribute": "fine_label", "values": of_base | dict.fromkeys(labels["novel"], "test"), "shares": None}


def start_package(folder: Path, samples: int) -> Path:
    """The e-CLIP that every arm starts from, trained once."""
    from shoplens.synthetic import SyntheticShop, synthesize

    digest = hashlib.sha256(repr((SHOP, TOWER, samples)).encode()).hexdigest()[:8]
    shop, package = folder / "shop", folder / f"eclip-{digest}"
    if not package.exists():
        if not shop.exists():
            synthesize(shop, SyntheticShop(**SHOP), name="start")
        print(f"e-CLIP: {train_eclip(str(shop), package, samples, *TOWER)}", flush=True)
    return package


def results_of(runs: list[Run], options: argparse.Namespace) -> dict[Run, dict[str, Any]]:
    """The result of every run; runs without one are trained first."""
    missing = [run for run in runs if not run.file(options.runs).exists()]
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them from earlier calls", flush=True)
    titled = [(f"{run.case.name} {run.arm} seed {run.seed} on {run.judged}", (run, options.runs)) for run in missing]
    run_all(make, titled, options.processes)
    return {run: json.loads(run.file(options.runs).read_text()) for run in runs}


def make(run: Run, folder: Path) -> str:
    """Trains and evaluates one run and keeps its result. Returns its recall@1 as text."""
    import torch

    from shoplens.config import override, read_yaml
    from shoplens.curation.product_clusters import splits_of
    from shoplens.evaluation import metric_space
    from shoplens.recipes.similar import SimilarRecipe

    torch.set_num_threads(1)
    config_file = str(CONFIGS / "similar.yaml")
    learnt = ["train"] if run.judged == "val" else ["train", "val"]
    own = [f"dataset={run.case.dataset}", f"seed={run.seed}", f"model.start_from={run.start}", f"splits={learnt}"]
    tree = {name: part for name, part in read_yaml(config_file).items() if name != "preprocessing"}
    recipe = SimilarRecipe.load(override(tree, [*own, *run.settings]), config_file)
    config = recipe.config
    if run.arm == "start":
        torch.manual_seed(run.seed)
        model = recipe.build().eval()
    else:
        model = train(recipe)
    embedder = recipe.package(model)
    split = splits_of(recipe.dataset, recipe.clusters.component, config.classes.splits, config.splits)
    photos = np.flatnonzero(split == run.judged)
    pictures = pixels(run.case.dataset, config.preprocessing.model_dump_json())
    widths = sorted({*config.model.head.widths, 128})
    pca_photos = recipe.photos if run.judged == "test" and widths[0] < widths[-1] else photos[:0]
    findings = metric_space.judge(
        embedder.encode_rows(pictures[photos]),
        recipe.clusters.label[photos],
        config.objective,
        widths,
        embedder.dim,
        embedder.encode_rows(pictures[pca_photos]),
    )
    result = {
        "run": asdict(run),
        "photos": {"learnt": len(recipe.photos), "judged": len(photos)},
        "classes": {"learnt": recipe.classes, "judged": len(np.unique(findings.groups["similar/recall@1"]))},
        "clipped_share": findings.about.get("clipped_share"),
        "relative_delta": findings.about["relative_delta"],
        "metrics": {
            name: {
                "outcomes": outcomes.tolist(),
                "groups": findings.groups[name].tolist(),
                "chance": findings.chance[name],
            }
            for name, outcomes in findings.outcomes.items()
        },
    }
    keep(run.file(folder), result)
    return f"R@1 {np.mean(findings.outcomes['similar/recall@1']):.3f}"


def trained_recall(result: dict[str, Any]) -> float:
    """Recall@1 of the ranking that the loss trains: distance in the ball for the hyperbolic loss, else cosine."""
    metrics = result["metrics"]
    name = "similar/ball/recall@1"
    return round(float(np.mean(metrics[name if name in metrics else "similar/recall@1"]["outcomes"])), 4)


def summary(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Figures of one case: of `VECTORS`, of the comparisons `OVER`, and of the shape of each arm's space.

    results   arm -> results by seed
    """

    def metrics(vectors: str) -> list[dict[str, Any]]:
        arm, prefix = VECTORS[vectors]
        return [{k: seed["metrics"][f"{prefix}/{k}"] for k in RECALLS} for seed in results[arm]]

    first = results["start"][0]
    return {
        "photos": first["photos"],
        "classes": first["classes"],
        "vectors": {
            name: {k: mean_over_seeds([seed[k] for seed in metrics(name)]) for k in RECALLS} for name in VECTORS
        },
        "over": [{"new": new, "old": old, **paired_differences(metrics(new), metrics(old))} for new, old in OVER],
        "clipped_share": {
            arm: [seed["clipped_share"] for seed in by_seed]
            for arm, by_seed in results.items()
            if by_seed[0]["clipped_share"] is not None
        },
        "relative_delta": {arm: [seed["relative_delta"] for seed in by_seed] for arm, by_seed in results.items()},
    }


def tables(result: dict[str, Any]) -> str:
    """Markdown: recalls of the vectors (bold: the interval reaches the best value of the column), paired differences (bold:
    the interval excludes 0), and the trials (bold: the chosen one)."""
    cases = result["cases"]
    columns = [f"{name}, {k.replace('recall', 'R')}" for name in cases for k in RECALLS]
    lines = [f"`{result['command']}`", "", *table_head("vectors", *columns)]
    best = {
        (name, k): max(v[k]["value"] for v in of["vectors"].values()) for name, of in cases.items() for k in RECALLS
    }
    for vectors in VECTORS:
        cells = [value_cell(cases[name]["vectors"][vectors][k], best[name, k]) for name, k in best]
        lines.append(f"| {vectors} | {' | '.join(cells)} |")
    chance = [next(iter(of["vectors"].values()))[k]["chance"] for of in cases.values() for k in RECALLS]
    lines += [f"| chance | {' | '.join(f'{value:.3f}' for value in chance)} |", ""]
    lines += table_head("", "over", *columns)
    for place, (new, old) in enumerate(OVER):
        cells = [difference_cell(of["over"][place][k]) for of in cases.values() for k in RECALLS]
        lines.append(f"| {new} | {old} | {' | '.join(cells)} |")
    for name, of in cases.items():
        lines += ["", *table_head(f"{name}, tried", "R@1 on `val`")]
        for trial in [trial for trials in of["trials"].values() for trial in trials]:
            cell = f"{trial['recall@1']:.3f}"
            values = " ".join(setting.partition("=")[2] for setting in trial["settings"])
            lines.append(f"| `{values}` | {f'**{cell}**' if trial['chosen'] else cell} |")
    lines.append("")
    for name, of in cases.items():
        photos, classes = of["photos"], of["classes"]
        lines.append(
            f"- {name}: trained on {photos['learnt']:,} photos of {classes['learnt']} classes, evaluated on "
            f"{photos['judged']:,} photos of {classes['judged']} classes; relative hyperbolicity by seed: "
            f"{by_seed(of['relative_delta'])}; share of the evaluated rows that the radius clips: "
            f"{by_seed(of['clipped_share'])}"
        )
    return "\n".join([*lines, ""])


def by_seed(figures: dict[str, list[float]]) -> str:
    return ", ".join(f"{arm} {' '.join(f'{value:.2f}' for value in values)}" for arm, values in figures.items())


if __name__ == "__main__":
    main()
