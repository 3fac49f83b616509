"""What does CLIK's machinery add? Its arms and simple rankers on one shop of planted fit and attraction.

    python benchmarks/clik_arms.py OUT [--products N | --shop DIR] [--seeds 7 8 9] [--folds N] [--arms NAME ...]
        [--processes N] [key=value ...]

Every arm of every seed starts from one e-CLIP, trained here on the shop's own products, and sees the same topics,
split alike for all seeds (in N folds of chance where topics are few): half of them to learn from, four tenths to judge
by. A topic's candidates are the products that it lists and others that were shown with it; they are ranked by how
shoppers clicked. Results are kept in --runs, so the command may be stopped and given again.
OUT gets `clik_arms.json` and `clik_arms.md`: means over the seeds, 95 % intervals over redrawn topics.

The shop's review counts stray further from what shoppers like than the synthetic shop's usually do: log(1 + count) has
the standard deviation 1.28 (the usual: 0.88), as in real shops: 1.32 of 1,698 AliExpress listings' sales, 2.23 of 1,140
Wish listings' rating counts (Kaggle: "E-commerce Furniture Dataset 2024", "Sales of summer clothes in E-commerce
Wish"). The usual counts all but measure attractiveness, charm and price included, which no photo shows.

A shop without a log takes its topics from attributes and is judged by matching alone:

    python benchmarks/clik_arms.py OUT --name clik_fashion --shop data/fashion --folds 5 --epochs 20
        --arms similarity linear topics.shares=[0.7,0.1,0.2] topics.made_of=[season,usage,gender]
        topics.candidates=listed topics.liked=nothing

Rankers without CLIK: `random`; `popularity`, the review count; `image`, a ridge regression on the photo's vector of
clicks, as they differ within a topic, whatever the topic; `similarity`, e-CLIP's cosine of topic text and photo.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from ablation import SMALL as SMALL_ECLIP
from ablation import changed, gain, pixels, told, train

TOWER = "model.image={name: test_resnet, options: {}}"
"""A ResNet of 0.4 million weights. The ConvNeXt of the e-CLIP ablation learns colours but no patterns in as many steps,
and its vectors lie in a few dimensions."""
CONFIGS = Path(__file__).parents[1] / "workloads/configs"
SHOP = {"seed": 23, "image_size": 64, "impressions_per_product": 40.0, "review_noise": 1.13}
SETTINGS = ["topics.shares=[0.5, 0.1, 0.4]", "training.learning_rate=0.002"]
"""Chosen, like losses' weights and temperature, on `val` and `test` of another shop (seed 5, 30,000 products)."""
GROUPS = 8
"""Topics ranked in a step. Compat ranks one a step, so that an epoch of it has the steps of so many."""
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
    parser.add_argument("out", type=Path)
    parser.add_argument("--products", type=int, default=150_000, help="of the synthetic shop")
    parser.add_argument("--shop", type=Path, help="a dataset with topics and a log, in place of a synthetic shop")
    parser.add_argument("--name", default="clik_arms", help="of the two files in OUT")
    parser.add_argument("--folds", type=int, default=1, help="splits of the topics, each trained and judged")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--arms", nargs="+", choices=[*ARMS, *RANKERS], default=[*RANKERS, *ARMS])
    parser.add_argument("--base-samples", type=int, default=480_000, help="photos that the e-CLIP is trained on")
    parser.add_argument("--epochs", type=int, default=8, help="of CLIK: each ranks every topic once")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=Path, default=Path("data/clik_arms"))
    options, settings = parser.parse_known_args()

    shop = options.shop or synthetic(options.runs, options.products)
    work = [(seed, arm) for seed in options.seeds for arm in options.arms]
    start = options.runs / f"eclip-{hashed(str(shop), options.base_samples)}"
    folder = options.runs / hashed(str(shop), options.base_samples, options.epochs, options.folds, settings)
    folder.mkdir(parents=True, exist_ok=True)
    print(f"e-CLIP: {base(str(shop), start, options.base_samples)}", flush=True)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        jobs = {
            pool.submit(run, str(shop), start, folder, seed, arm, options.epochs, options.folds, settings): (seed, arm)
            for seed, arm in work
            if not file_of(folder, seed, arm).exists()
        }
        for number, finished in enumerate(as_completed(jobs), 1):
            seed, arm = jobs[finished]
            print(f"{number}/{len(jobs)} seed {seed} {arm}: {finished.result()}", flush=True)
    found = {
        arm: [json.loads(file_of(folder, seed, arm).read_text()) for seed in options.seeds] for arm in options.arms
    }
    options.out.mkdir(parents=True, exist_ok=True)
    result = summary(found, options, shop)
    (options.out / f"{options.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / f"{options.name}.md").write_text(table(result))
    print(options.out / f"{options.name}.md")


def synthetic(folder: Path, products: int) -> Path:
    from shoplens.synthetic import SyntheticShop, synthesize

    out = folder / f"shop-{products}"
    if not out.exists():
        synthesize(out, SyntheticShop.of(products=products, **SHOP), name="topics")
    return out


def hashed(*decisive: object) -> str:
    fixed = (SMALL_ECLIP, TOWER, SHOP, SETTINGS, GROUPS, ARMS)
    return hashlib.sha256(repr((fixed, decisive)).encode()).hexdigest()[:8]


def file_of(folder: Path, seed: int, arm: str) -> Path:
    return folder / f"{arm.replace(' ', '_').replace(',', '')}-{seed}.json"


def base(shop: str, package: Path, samples: int, *own: str) -> str:
    """An e-CLIP of the shop's training products, as a package; `own` are settings that precede those here."""
    import torch

    from shoplens.config import override, read_yaml
    from shoplens.recipes import eclip

    if package.exists():
        return f"{package}, made before"
    torch.set_num_threads(1)
    config = str(CONFIGS / "eclip.yaml")
    settings = [f"dataset={shop}", "attribute_heads=0", "negatives=category", *SMALL_ECLIP, TOWER]
    tree = override(read_yaml(config), [*settings, "model.text.max_tokens=48", "training.learning_rate=0.004", *own])
    recipe = eclip.EclipRecipe.load(tree, config)
    epochs = max(1, round(samples / (recipe.steps(0) * recipe.training.batch_size)))
    recipe = eclip.EclipRecipe.load(override(tree, [f"training.epochs={epochs}"]), config)
    with tempfile.TemporaryDirectory() as scratch:
        model, _ = train(recipe, Path(scratch))
    recipe.save(model, package)
    return str(package)


def run(shop: str, start: Path, folder: Path, seed: int, arm: str, epochs: int, folds: int, settings: list[str]) -> str:
    """Trains and judges one arm, or judges one of the simple rankers, and keeps what it found."""
    import torch

    from shoplens.config import override, read_yaml
    from shoplens.recipes import clik

    torch.set_num_threads(1)
    config = str(CONFIGS / "clik.yaml")
    tree = {name: part for name, part in read_yaml(config).items() if name not in ("model", "preprocessing")}
    own = [f"dataset={shop}", f"seed={seed}", f"model.start_from={start}", *SETTINGS]
    own += [f"training.epochs={max(1, epochs // GROUPS) if arm == 'compat' else epochs}"]
    own += [f"batches.groups={GROUPS}", *ARMS.get(arm, []), *settings]
    found = []
    for fold in range(folds):
        recipe = clik.ClikRecipe.load(override(tree, [*own, f"topics.seed={fold}"]), config)
        if arm in ARMS:
            with tempfile.TemporaryDirectory() as scratch:
                model, _ = train(recipe, Path(scratch))
        else:
            model = recipe.build().eval()
        found.append(judged(recipe, model, arm, shop))
    figures = {
        name: {
            "outcomes": np.concatenate([fold.outcomes[name] for fold in found]).tolist(),
            "groups": np.concatenate([fold.groups[name] for fold in found]).tolist(),
            **({"chance": float(np.mean([fold.chance[name] for fold in found]))} if name in found[0].chance else {}),
        }
        for name in SHOWN
        if name in found[0].outcomes
    }
    partial = file_of(folder, seed, arm).with_suffix(".partial")
    partial.write_text(json.dumps(figures))
    partial.rename(file_of(folder, seed, arm))
    first = next(iter(figures))
    return f"{first} {np.mean(figures[first]['outcomes']):.3f}"


def judged(recipe: Any, model: Any, arm: str, shop: str) -> Any:
    """Findings on the topics of the test split."""
    import torch
    from tokenizers import Tokenizer

    from shoplens.curation.topics import topics_by_split, topics_of
    from shoplens.evaluation import shelves
    from shoplens.evaluation.topics import CandidateList, rank_candidates
    from shoplens.recipes import clik
    from shoplens.recipes.clik import Ranker

    dataset, config = recipe.dataset, recipe.config
    ranker = Ranker("arm", config.model, config.preprocessing, Tokenizer.from_str(recipe.tokenizer_json), model)
    photos, topics, pictures = (
        clik.photos_of(dataset),
        topics_of(dataset, config.topics.made_of),
        pixels(shop, config.preprocessing.model_dump_json()),
    )
    tables = topics_by_split(dataset, topics, config.topics, clik.catalogs_of(dataset))
    table = tables["test"]
    if model.query.bank is not None:
        learnt = np.unique([photos[row][0] for row in np.unique(recipe.table.product)])
        frozen = clik.prototypes(ranker.encode_images(pictures[learnt]), len(model.query.bank.rows))
        model.query.bank.freeze(torch.tensor(frozen))
    gallery, item = np.unique([photos[row][0] for row in table.product], return_inverse=True)
    vectors = ranker.encode_images(pictures[gallery])
    rows = table.topics.tolist()
    category = [topics[topic].cat1 for topic in rows]
    asked = ranker.encode_topics([topics[topic] for topic in rows])
    if arm == "similarity":
        said = [" ".join([t.name, t.desc, *t.kwds]) for t in (topics[topic] for topic in rows)]
        plain = super(Ranker, ranker).encode_texts(said)
        return shelves.judge(table, item, vectors, plain, plain, category)
    if arm in ARMS:
        return shelves.judge(table, item, vectors, asked.topic, asked.query, category)
    groups = table.groups()
    scores = [np.zeros(len(one)) for one in groups]
    if arm == "popularity":
        reviews = np.array(dataset.products["review_count"].to_pylist(), dtype=np.float64)
        scores = [reviews[table.product[one]] for one in groups]
    elif arm == "image":
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        learnt = recipe.table
        seen, place = np.unique([photos[row][0] for row in learnt.product], return_inverse=True)
        liked_more = learnt.liked.copy()
        for rows in learnt.groups():
            liked_more[rows] -= liked_more[rows].mean()
        ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 4, 15)))
        liked = ridge.fit(ranker.encode_images(pictures[seen])[place], liked_more).predict(vectors)
        scores = [liked[item[one]] for one in groups]
    lists = [CandidateList(int(table.topic[one[0]]), item[one], table.liked[one]) for one in groups]
    return rank_candidates(scores, lists, category)


def summary(found: dict[str, list[dict[str, Any]]], options: argparse.Namespace, shop: Path) -> dict[str, Any]:
    from shoplens.statistics.bootstrap import interval

    arms = {
        arm: {name: told([seed[name] for seed in by_seed], interval) for name in SHOWN if name in by_seed[0]}
        for arm, by_seed in found.items()
    }
    over = {
        arm: changed(
            [{"metrics": {name: seed[name] for name in by_seed[0]}} for seed in found[DEFAULT]],
            [{"metrics": seed} for seed in by_seed],
            interval,
        )
        for arm, by_seed in found.items()
        if DEFAULT in found and arm != DEFAULT
    }
    return {
        "command": " ".join(["python", *sys.argv]),
        "shop": shop.name,
        "seeds": options.seeds,
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("torch", "timm", "transformers", "numpy")},
        "arms": arms,
        "default_over": over,
    }


def table(result: dict[str, Any]) -> str:
    """Markdown: the best of each column in bold with those whose interval reaches its value; then what the default has
    over each on the same topics, in bold where the interval leaves out 0."""
    arms = result["arms"]
    names = [name for name in SHOWN if any(name in arm for arm in arms.values())]
    best = {name: max(arm[name]["value"] for arm in arms.values() if name in arm) for name in names}
    lines = [f"`{result['command']}`", "", "| | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for arm, figures in arms.items():
        cells = []
        for name in names:
            metric = figures.get(name)
            cell = "" if metric is None else f"{metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"
            cells.append(f"**{cell}**" if metric and metric["high"] >= best[name] else cell)
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    if result["default_over"]:
        lines += ["", f"| {DEFAULT} over | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for arm, figures in result["default_over"].items():
        lines.append(f"| {arm} | {' | '.join(gain(figures[name]) if name in figures else '' for name in names)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
