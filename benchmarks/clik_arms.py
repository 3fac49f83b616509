"""CLIK's parts, one by one, and simple rankers, on one shop with known fit and attraction.

    python benchmarks/clik_arms.py OUT [--products N | --shop DIR] [--seeds 7 8 9] [--folds N] [--arms NAME ...]
        [--processes N] [key=value ...]

Each arm changes one part of CLIK; the others are rankers without CLIK. All arms of all seeds start from the same e-CLIP,
which is trained here on the shop's products, and see the same topics. The topic split is the same for all seeds: half of
the topics for training, four tenths for the test. With --folds N the split is drawn N times, for shops with few topics. A
topic's candidates are the products it lists and others that were shown with it. The relevant order is the click rate.

Rankers without CLIK: `random`; `popularity`, the review count; `image`, a ridge regression from the photo's vector to the
click rate relative to its topic; `similarity`, e-CLIP's cosine of topic text and photo.

The shop's review counts are noisier than the default of the synthetic shop: log(1 + count) has a standard deviation of
1.28 instead of 0.88. Real shops have 1.32 (sales of 1,698 AliExpress listings) and 2.23 (rating counts of 1,140 Wish
listings; Kaggle: "E-commerce Furniture Dataset 2024", "Sales of summer clothes in E-commerce Wish"). The default counts
almost equal the attractiveness, including charm and price, which no photo shows.

For a shop without a click log, topics are made from attributes and only the matching is evaluated:

    python benchmarks/clik_arms.py OUT --name clik_fashion --shop data/fashion --folds 5 --epochs 20
        --arms similarity linear topics.shares=[0.7,0.1,0.2] topics.made_of=[season,usage,gender]
        topics.candidates=listed topics.liked=nothing

OUT receives `clik_arms.json` and `clik_arms.md`: means over seeds with 95 % intervals, a bootstrap over topics.

Duration at the default size on 2 cores: about 2 hours (estimate). The folder --runs keeps shop, e-CLIP and each run's result, so an
interrupted command continues when it is repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
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
from small_models import CONFIGS, RESNET, SMALL, TOPIC_SHOP, pixels, synthetic_topic_shop, train, train_eclip

SETTINGS = ["topics.shares=[0.5, 0.1, 0.4]", "training.learning_rate=0.002"]
"""Like the weights and the temperature of the losses, tuned on `val` and `test` of another shop (seed 5, 30,000 products)."""
GROUPS = 8
"""Lists ranked in a step. `compat` ranks one topic a step, so it has GROUPS times as many steps an epoch."""
BANK = ["model.query.bank=1024"]
ARMS: dict[str, list[str]] = {
    "linear": [],
    "bank mean": ["model.query.reads=mean", *BANK],
    "bank attention": ["model.query.reads=attention", *BANK],
    "bank attention, temperature 1": [
        "model.query.reads=attention",
        "model.query.temperature=1",
        "model.query.learn_temperature=false",
        *BANK,
    ],
    "without product texts": ["batches.product_text=0"],
    "matching only": ["objective.ranking_weight=0"],
    "ranking only": ["objective.matching_weight=0"],
    "compat": ["compat=reference", "topics.refinement=corrected"],
}
DEFAULT = "linear"
RANKERS = ("random", "popularity", "image", "similarity")
SHOWN = (
    "ranking/mrr",
    "ranking/top1_top1",
    "ranking/top3_top1",
    "ranking/ndcg@5",
    "ranking/ndcg@10",
    "ranking/best_in_5",
    "topic_to_image/mrr",
    "topic_to_image/recall@10",
    "image_to_topic/recall@1",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--products", type=int, default=150_000, help="products of the synthetic shop")
    parser.add_argument("--shop", type=Path, help="dataset with topics and a click log, instead of the synthetic shop")
    parser.add_argument("--name", default="clik_arms", help="name of the two files in OUT, without suffix")
    parser.add_argument("--folds", type=int, default=1, help="topic splits; each is trained and evaluated")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *RANKERS], default=[*RANKERS, *ARMS])
    parser.add_argument("--base-samples", type=int, default=480_000, help="training photos that the e-CLIP sees")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of CLIK; each ranks every topic once")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="runs at the same time, one core each")
    parser.add_argument(
        "--runs", type=Path, default=Path("data/clik_arms"), help="folder of shop, e-CLIP and run results"
    )
    options, settings = parser.parse_known_args()

    shop = options.shop or synthetic_topic_shop(options.runs, options.products)
    start = options.runs / f"eclip-{digest(str(shop), options.base_samples)}"
    folder = options.runs / digest(str(shop), options.base_samples, options.epochs, options.folds, settings)
    print(f"e-CLIP: {train_eclip(str(shop), start, options.base_samples)}", flush=True)
    missing = [
        (f"seed {seed} {arm}", (str(shop), start, folder, seed, arm, options.epochs, options.folds, settings))
        for seed in options.seeds
        for arm in options.arms
        if not file_of(folder, seed, arm).exists()
    ]
    run_all(run, missing, options.processes)
    results = {
        arm: [json.loads(file_of(folder, seed, arm).read_text()) for seed in options.seeds] for arm in options.arms
    }
    options.out.mkdir(parents=True, exist_ok=True)
    result = summary(results, options, shop)
    (options.out / f"{options.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / f"{options.name}.md").write_text(table(result))
    print(options.out / f"{options.name}.md")


def digest(*settings: object) -> str:
    """Names the results of these settings and of this module's constants."""
    fixed = (SMALL, RESNET, TOPIC_SHOP, SETTINGS, GROUPS, ARMS)
    return hashlib.sha256(repr((fixed, settings)).encode()).hexdigest()[:8]


def file_of(folder: Path, seed: int, arm: str) -> Path:
    return folder / f"{arm.replace(' ', '_').replace(',', '')}-{seed}.json"


def run(shop: str, start: Path, folder: Path, seed: int, arm: str, epochs: int, folds: int, settings: list[str]) -> str:
    """Trains and evaluates an arm, or evaluates a simple ranker, and keeps its metrics. Returns the first one as text."""
    import torch

    from shoplens.config import override, read_yaml
    from shoplens.recipes import clik

    torch.set_num_threads(1)
    config = str(CONFIGS / "clik.yaml")
    tree = {name: part for name, part in read_yaml(config).items() if name not in ("model", "preprocessing")}
    own = [f"dataset={shop}", f"seed={seed}", f"model.start_from={start}", *SETTINGS]
    own += [f"training.epochs={max(1, epochs // GROUPS) if arm == 'compat' else epochs}"]
    own += [f"batches.groups={GROUPS}", *ARMS.get(arm, []), *settings]
    findings = []
    for fold in range(folds):
        recipe = clik.ClikRecipe.load(override(tree, [*own, f"topics.seed={fold}"]), config)
        model = train(recipe) if arm in ARMS else recipe.build().eval()
        findings.append(evaluate(recipe, model, arm, shop))
    figures = {
        name: {
            "outcomes": np.concatenate([fold.outcomes[name] for fold in findings]).tolist(),
            "groups": np.concatenate([fold.groups[name] for fold in findings]).tolist(),
            **(
                {"chance": float(np.mean([fold.chance[name] for fold in findings]))}
                if name in findings[0].chance
                else {}
            ),
        }
        for name in SHOWN
        if name in findings[0].outcomes
    }
    keep(file_of(folder, seed, arm), figures)
    first = next(iter(figures))
    return f"{first} {np.mean(figures[first]['outcomes']):.3f}"


def evaluate(recipe: Any, model: Any, arm: str, shop: str) -> Any:
    """Findings on the topics of the test split."""
    import torch

    from shoplens.curation.topics import topics_by_split, topics_of
    from shoplens.datasets.samples import catalog_codes
    from shoplens.evaluation import shelves
    from shoplens.evaluation.topics import CandidateList, rank_candidates
    from shoplens.recipes import clik

    dataset, config = recipe.dataset, recipe.config
    ranker = recipe.package(model)
    photos, topics, pictures = (
        clik.photos_of(dataset),
        topics_of(dataset, config.topics.made_of),
        pixels(shop, config.preprocessing.model_dump_json()),
    )
    tables = topics_by_split(dataset, topics, config.topics, catalog_codes(dataset))
    table = tables["test"]
    if model.query.bank is not None:
        train_photos = np.unique([photos[row][0] for row in np.unique(recipe.table.product)])
        prototypes = clik.prototypes(ranker.encode_images(pictures[train_photos]), len(model.query.bank.rows))
        model.query.bank.freeze(torch.tensor(prototypes))
    gallery, item = np.unique([photos[row][0] for row in table.product], return_inverse=True)
    vectors = ranker.encode_images(pictures[gallery])
    rows = table.topics.tolist()
    category = [topics[topic].cat1 for topic in rows]
    if arm == "similarity":
        texts = [" ".join([t.name, t.desc, *t.kwds]) for t in (topics[topic] for topic in rows)]
        plain = super(clik.Ranker, ranker).encode_texts(texts)
        return shelves.judge(table, item, vectors, plain, plain, category)
    if arm in ARMS:
        query = ranker.encode_topics([topics[topic] for topic in rows])
        return shelves.judge(table, item, vectors, query.topic, query.query, category)
    groups = table.groups()
    scores = [np.zeros(len(one)) for one in groups]
    if arm == "popularity":
        reviews = np.array(dataset.products["review_count"].to_pylist(), dtype=np.float64)
        scores = [reviews[table.product[one]] for one in groups]
    elif arm == "image":
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        train_photos, place = np.unique([photos[row][0] for row in recipe.table.product], return_inverse=True)
        relative = recipe.table.liked.copy()
        for rows in recipe.table.groups():
            relative[rows] -= relative[rows].mean()
        ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 4, 15)))
        liked = ridge.fit(ranker.encode_images(pictures[train_photos])[place], relative).predict(vectors)
        scores = [liked[item[one]] for one in groups]
    lists = [CandidateList(int(table.topic[one[0]]), item[one], table.liked[one]) for one in groups]
    return rank_candidates(scores, lists, category)


def summary(results: dict[str, list[dict[str, Any]]], options: argparse.Namespace, shop: Path) -> dict[str, Any]:
    """Figures of every arm, and of the default arm against each of the others."""
    arms = {
        arm: {name: mean_over_seeds([seed[name] for seed in by_seed]) for name in SHOWN if name in by_seed[0]}
        for arm, by_seed in results.items()
    }
    over = {
        arm: paired_differences([{name: seed[name] for name in by_seed[0]} for seed in results[DEFAULT]], by_seed)
        for arm, by_seed in results.items()
        if DEFAULT in results and arm != DEFAULT
    }
    return {
        "command": command(),
        "shop": shop.name,
        "seeds": options.seeds,
        "machine": machine(),
        "versions": versions("torch", "timm", "transformers", "numpy"),
        "arms": arms,
        "default_over": over,
    }


def table(result: dict[str, Any]) -> str:
    """Markdown: the arms (bold: the interval reaches the best value of the column), then the default arm minus each other
    arm on the same topics (bold: the interval excludes 0)."""
    arms = result["arms"]
    names = [name for name in SHOWN if any(name in arm for arm in arms.values())]
    best = {name: max(arm[name]["value"] for arm in arms.values() if name in arm) for name in names}
    lines = [f"`{result['command']}`", "", *table_head("", *names)]
    for arm, figures in arms.items():
        cells = [value_cell(figures[name], best[name]) if name in figures else "" for name in names]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    if result["default_over"]:
        lines += ["", *table_head(f"{DEFAULT} over", *names)]
    for arm, figures in result["default_over"].items():
        cells = [difference_cell(figures[name]) if name in figures else "" for name in names]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
