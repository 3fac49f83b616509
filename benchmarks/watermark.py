"""The detector of watermarks on photos of a shop whose labels are known, without and with having trained on them.

    python benchmarks/watermark.py OUT --marked DIR --fashion DATASET --grocery DATASET [--luma DATASET]

`--marked` is a folder with `images.jsonl`, one photo a line: `{"image": PATH, "watermark": true}`. Its photos are
divided into a training and a test part; near-duplicates (perceptual hashes that differ in at most `NEAR` bits) stay on
one side. All figures are of the test part.

    drawn      the recipe as configured: marks drawn on photos of fashion and grocery, no photo of `--marked` is seen
    labelled   the same recipe, trained on the labels of the training part, nothing is drawn
    probe      logistic regression on the pooled features of the same trunk, trained as `labelled`; the regularisation is
               chosen by cross-validation

Each AUC has a bootstrap interval over near-duplicate groups. `all` judges `drawn` on both parts, since it has seen none.
False alarms are the share of test photos of fashion, grocery and luma that score `--cut` or more.

OUT receives `watermark.json` and the packages `drawn` and `labelled`. Duration at the default size: 12 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from arms import command, machine, versions
from small_models import CONFIGS, train

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

NEAR = 8
"""Bits of 64."""
TEST_SHARE = 0.3
ATTRIBUTE = "watermark"
LABELLED = (
    f"label={{attribute: {ATTRIBUTE}, marked: 'yes'}}",
    "augmentation=null",
    "photo_views=1",
    "training.epochs=30",
)
CS = (1e-4, 1e-3, 1e-2, 1e-1)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path, metavar="OUT", help="folder of the result")
    arguments.add_argument("--marked", type=Path, required=True, metavar="DIR", help="folder with images.jsonl")
    for shop in ("fashion", "grocery", "luma"):
        arguments.add_argument(
            f"--{shop}", metavar="DATASET", required=shop != "luma", help=f"dataset imported from {shop}"
        )
    arguments.add_argument("--photos", type=int, default=600, help="training photos of fashion and of grocery each")
    arguments.add_argument("--judged", type=int, default=150, help="photos of each shop for the false alarms")
    arguments.add_argument("--cut", type=float, default=0.9, help="score from which on a photo counts as marked")
    arguments.add_argument("--seed", type=int, default=7)
    options, settings = arguments.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        result = run(options, settings, Path(scratch))
    text = json.dumps(result, indent=1)
    (options.out / "watermark.json").write_text(text + "\n")
    print(text)


def run(options: argparse.Namespace, settings: list[str], scratch: Path) -> dict[str, Any]:
    shops = {name: getattr(options, name) for name in ("fashion", "grocery", "luma") if getattr(options, name)}
    learnt = {name: shops[name] for name in ("fashion", "grocery")}
    clean = imported(clean_rows(learnt, options.photos, scratch / "photos"), scratch / "photos", scratch / "clean")
    rows, group = marked_rows(options.marked)
    marked = imported(rows, options.marked, scratch / "marked")
    row_of = {row["id"]: place for place, row in enumerate(rows)}
    order = [row_of[product] for product in marked.products["product_id"].to_pylist()]
    test, truth = (
        np.array([rows[place][key] == yes for place in order]) for key, yes in (("split", "test"), (ATTRIBUTE, "yes"))
    )
    groups = group[order]

    own = [f"seed={options.seed}", *settings]
    arms, seconds = {}, {}
    for arm, dataset, more in (("drawn", clean, ()), ("labelled", marked, (*LABELLED, "evaluation.split=test"))):
        began = time.perf_counter(), time.process_time()
        recipe, model = trained([f"dataset={dataset.path}", *own, *more], scratch)
        recipe.save(model, options.out / arm)
        ended = time.perf_counter(), time.process_time()
        seconds[arm] = {"wall": round(ended[0] - began[0]), "processor": round(ended[1] - began[1])}
        arms[arm] = scorer(options.out / arm)
        print(arm, seconds[arm], flush=True)
    pixels = all_pixels(marked, arms["drawn"].preprocessing)
    scores = scores_of(arms, pixels)
    figures = {arm: judged(score[test], truth[test], groups[test], options.cut) for arm, score in scores.items()}
    figures["probe"] = judged(probe(pixels, truth, test, groups, arms["drawn"]), truth[test], groups[test], None)
    print(json.dumps(figures), flush=True)
    drawn_on, _ = recipe_class().evaluate(options.out / "drawn", clean, "val", None, {"cut": options.cut})
    alarms = {}
    for name, path in shops.items():
        photos = test_pixels(path, options.judged, arms["drawn"].preprocessing)
        found = scores_of(arms, photos)
        alarms[name] = {arm: round(float((score >= options.cut).mean()), 4) for arm, score in found.items()}
        alarms[name]["photos"] = len(photos)
    return {
        "command": command(),
        "cut": options.cut,
        "machine": machine(),
        "versions": versions("torch", "timm", "Pillow", "scikit-learn"),
        "photos": {
            "clean": clean.manifest.photos_by_split,
            "marked": {"train": int((~test).sum()), "test": int(test.sum()), "marked_test": int(truth[test].sum())},
        },
        "test": figures,
        "all": {"drawn": judged(scores["drawn"], truth, groups, options.cut)},
        "false_alarms": alarms,
        "drawn_marks": {
            **{name: rounded(metric) for name, metric in drawn_on.metrics.items()},
            "kinds": drawn_on.about["kinds"],
        },
        "seconds": seconds,
    }


def clean_rows(shops: dict[str, str], photos: int, folder: Path) -> list[dict[str, Any]]:
    """Writes training photos of each shop as files; a tenth of them is split `val`. Rows of a table of products."""
    from shoplens.datasets.format import Dataset

    folder.mkdir(parents=True)
    rows = []
    for name, path in shops.items():
        shop = Dataset(path)
        train = np.flatnonzero(np.array(shop.images["split"].to_pylist()) == "train")
        for place, sample in enumerate(np.random.default_rng(0).permutation(train)[:photos].tolist()):
            file = folder / f"{name}{sample}.jpg"
            file.write_bytes(shop.read_image(sample))
            rows.append(
                {"id": file.stem, "title": name, "images": [file.name], "split": "train" if place % 10 else "val"}
            )
    return rows


def marked_rows(folder: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Rows of a table of products with the attribute `watermark`, and the near-duplicate group of each, int64 [n]."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    from shoplens.curation.near_duplicates import near_photos
    from shoplens.datasets.images import HASH_SIDE, decode, perceptual_hash

    listed = [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]
    photos = (decode((folder / row["image"]).read_bytes(), draft=HASH_SIDE, grey=True) for row in listed)
    hashes = [perceptual_hash(photo.image) for photo in photos]
    pairs = near_photos(np.array(hashes, np.uint64), NEAR).pairs
    n = len(listed)
    group = connected_components(coo_matrix((np.ones(len(pairs)), pairs.T), (n, n)), directed=False)[1]
    drawn = np.random.default_rng(0).permutation(int(group.max()) + 1)
    is_test = drawn[group] < TEST_SHARE * len(drawn)
    rows = [
        {
            "id": f"m{place}",
            "title": "photo",
            "images": [row["image"]],
            "split": "test" if test else "train",
            "attributes": {ATTRIBUTE: ["yes" if row["watermark"] else "no"]},
            ATTRIBUTE: "yes" if row["watermark"] else "no",
        }
        for place, (row, test) in enumerate(zip(listed, is_test, strict=True))
    ]
    return rows, group


def imported(rows: Iterable[dict[str, Any]], images: Path, out: Path) -> Any:
    """The dataset of rows, imported as JSON lines in this process."""
    from shoplens.datasets.importing.plan import plan_import
    from shoplens.datasets.importing.shards import write_shard
    from shoplens.datasets.importing.table import Table
    from shoplens.datasets.photo_files import PhotoRules
    from shoplens.datasets.staging import Staging

    table = out.with_suffix(".jsonl")
    kept = ("id", "title", "images", "split", "attributes")
    table.write_text("".join(json.dumps({k: v for k, v in row.items() if k in kept}) + "\n" for row in rows))
    staging = Staging(str(out), {})
    staging.begin()
    for chunk in plan_import(Table(str(table), str(images.resolve())), staging, 1000):
        write_shard(staging, chunk, PhotoRules())
    return staging.finish(out.name, {})


def recipe_class() -> Any:
    from shoplens.recipes.watermark import WatermarkRecipe

    return WatermarkRecipe


def trained(settings: list[str], scratch: Path) -> tuple[Any, Any]:
    """The recipe of `watermark.yaml` under `settings`, and its trained model."""
    from shoplens.config import override, read_yaml
    from shoplens.training import trunk_vectors

    config = str(CONFIGS / "watermark.yaml")
    recipe = recipe_class().load(override(read_yaml(config), settings), config)
    recipe.check()
    if recipe.config.photo_views is not None:
        recipe.trunk_file = trunk_vectors.compute(recipe, scratch)
    return recipe, train(recipe)


def scorer(package: Path) -> Any:
    from shoplens.recipes.watermark import MarkScorer

    return MarkScorer.load(package)


def scores_of(arms: dict[str, Any], pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Scores float [n] of every arm; arms whose trunk is the same share its vectors."""
    import torch

    first, *others = (model.model.image.trunk.state_dict() for model in arms.values())
    if not all(other[name].equal(weight) for other in others for name, weight in first.items()):
        return {arm: model.score_images(pixels) for arm, model in arms.items()}
    trunk = next(iter(arms.values())).model
    with torch.inference_mode():
        vectors = torch.cat(
            [trunk.trunk_vectors(torch.from_numpy(part)) for part in np.array_split(pixels, -(-len(pixels) // 32))]
        )
        return {arm: torch.sigmoid(model.model(vectors)).numpy() for arm, model in arms.items()}


def all_pixels(dataset: Any, preprocessing: Any) -> np.ndarray:
    """Photos of every product in the order of the products (one photo a product), uint8 [products, 3, s, s]."""
    from shoplens.datasets.images import decode

    order = np.argsort(dataset.product_row, kind="stable")
    assert (dataset.product_row[order] == np.arange(len(order))).all()
    return np.stack([preprocessing(decode(dataset.read_image(int(sample))).image) for sample in order])


def test_pixels(path: str, photos: int, preprocessing: Any) -> np.ndarray:
    """Photos of the test split of a dataset, at most `photos` at random."""
    from shoplens.datasets.format import Dataset
    from shoplens.datasets.images import decode

    shop = Dataset(path)
    test = np.flatnonzero(np.array(shop.images["split"].to_pylist()) == "test")
    chosen = np.random.default_rng(1).permutation(test)[:photos]
    return np.stack([preprocessing(decode(shop.read_image(int(sample))).image) for sample in chosen])


def probe(pixels: np.ndarray, truth: np.ndarray, test: np.ndarray, groups: np.ndarray, like: Any) -> np.ndarray:
    """Scores of the test part by logistic regression on timm's pooled features of the trunk, float [tests]."""
    import timm
    import torch
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from shoplens.nn.packaged_weights import packaged_weights

    name = like.config.image.name
    trunk = timm.create_model(name, num_classes=0).eval()
    trunk.load_state_dict(packaged_weights(name), strict=False)
    model = like.model
    with torch.inference_mode():
        rows = [
            trunk((torch.from_numpy(pixels[at : at + 32]) - model.pixel_mean) / model.pixel_std)
            for at in range(0, len(pixels), 32)
        ]
    rows = torch.cat(rows).numpy()
    folds = list(GroupKFold(5).split(rows[~test], truth[~test], groups[~test]))
    chosen = LogisticRegressionCV(Cs=CS, cv=folds, scoring="roc_auc", max_iter=500)
    fitted = make_pipeline(StandardScaler(), chosen).fit(rows[~test], truth[~test])
    return fitted.decision_function(rows[test])


def judged(score: np.ndarray, truth: np.ndarray, group: np.ndarray, cut: float | None) -> dict[str, Any]:
    """AUC with its interval, and figures at the cut; None: the decision value 0 of the regression."""
    from shoplens.evaluation.detection import judge_scores

    found = judge_scores(score, truth, group, cut or 0.0, ATTRIBUTE, "").evaluation()
    return {name.partition("/")[2]: rounded(metric) for name, metric in found.metrics.items()}


def rounded(metric: Any) -> dict[str, float]:
    return {part: round(getattr(metric, part), 4) for part in ("value", "low", "high")}


if __name__ == "__main__":
    main()
