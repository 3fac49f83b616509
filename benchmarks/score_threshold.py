"""Which image-text score to cut at: models trained on what several cuts keep, at equal samples seen.

    python benchmarks/score_threshold.py OUT [--records 4000] [--mismatched 0.4] [--seeds 1 2 3] [--cuts 0 20 40 60 80]

NAVER Search chose the cut of its KELIP scores in this way. Here it runs on synthetic records of which a share is planted
with titles and queries of another product, so the best cut is known: it keeps the pairs that match and no others.

1. A scorer, an e-CLIP on a locked pretrained trunk, learns from another synthetic shop.
2. The records are curated, with its scores and no cut.
3. For each cut, a quantile of the calibrated scores, and each seed, a small dual encoder on a locked trunk is trained on
   equally many photos, drawn from those that the cut keeps, in equally many steps.
4. Each model is judged on two clean shops that nothing was trained on, by the precision at 10 of names of things. The
   first chooses: the lowest cut within one standard error of the best mean. The second says which cut is best.

Duration at the default size on 2 cores: 14 minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from curating import Processes, raw_records, settings
from short_queries import TEXTS, table
from small_models import CONFIGS, SMALL, pixels, train

from shoplens.config import override, read_yaml
from shoplens.curation.pipeline.curate import curate
from shoplens.curation.pipeline.learned import Models
from shoplens.datasets.format import Dataset
from shoplens.packages.photo_scoring import PairScorer
from shoplens.recipes.eclip import EclipRecipe
from shoplens.synthetic import SyntheticShop, synthesize
from shoplens.training import trunk_vectors

SCORER_SEED, FIRST_SHOP, SECOND_SHOP = 7, 101, 102
SMALL_TEXT = (
    *(setting for setting in SMALL if setting.startswith(("model.text", "model.dim", "queries"))),
    "photo_views=1",
    "attribute_heads=0",
    "training.batch_size=96",
    "training.feed=ray",
)
"""Settings of the models that are compared: a locked trunk, whose vectors are computed once, and small text towers."""


def shop(folder: Path, seed: int, products: int, size: int = 128) -> Dataset:
    """A clean synthetic shop, made once."""
    out = folder / f"shop-{seed}"
    return (
        Dataset(out) if out.exists() else synthesize(out, SyntheticShop(products=products, seed=seed, image_size=size))
    )


def scorer_package(folder: Path, products: int, epochs: int) -> Path:
    """The scorer, trained once."""
    package = folder / "scorer"
    if not package.exists():
        file = str(CONFIGS / "eclip_locked.yaml")
        chosen = [f"dataset={shop(folder, SCORER_SEED, products).path}", f"training.epochs={epochs}"]
        recipe = EclipRecipe.load(override(read_yaml(file), [*chosen, TEXTS, "attribute_heads=0"]), file)
        recipe.trunk_file = trunk_vectors.compute(recipe, folder)
        recipe.save(train(recipe), package)
    return package


def curated(folder: Path, raw: Path, package: Path, on: str) -> Dataset:
    """The records with their scores, and no cut by them."""
    score = {"model": "scorer", "on": on, "at_least": -1e9}
    config = settings(raw, folder / "curated", learned={"score": score}, shards={"val": 0.02, "test": 0})
    models = partial(_load, str(package))
    return curate(config, {"score": str(package)}, models, Processes(2), overwrite=True).dataset


def _load(package: str) -> Models:
    return Models(scorer=PairScorer(package))


def locked(model: Any, photos: np.ndarray) -> torch.Tensor:
    """Vectors of the locked trunk for pixels uint8 [n, 3, s, s]."""
    with torch.inference_mode():
        rows = [model.trunk_vectors(torch.tensor(photos[k : k + 64])) for k in range(0, len(photos), 64)]
    return torch.cat(rows).float()


def precision(model: Any, recipe: EclipRecipe, clean: Dataset, seen: torch.Tensor) -> float:
    """Mean precision at 10 of the names of things, in both languages.

    seen   vectors of the locked trunk for the photos of the shop
    """
    package = recipe.package(model)
    with torch.inference_mode():
        vectors = torch.nn.functional.normalize(model.encode_image(seen)).numpy()
    encode: Callable[[Sequence[str]], np.ndarray] = lambda texts: np.asarray(package.encode_texts(texts))  # noqa: E731
    rows = [row for row in table(clean, vectors, encode) if row["photos"] == "all" and row["query"] == "thing"]
    return statistics.mean(row["precision"] for row in rows if row["language"] in ("en", "ko"))


def matching(raw: Path, dataset: Dataset) -> list[bool]:
    """Whether each row of `image_texts` is of a pair that was planted to match."""
    images = pq.read_table(f"{dataset.path}.signals/photos.parquet").to_pylist()
    pairs = pq.read_table(raw / "truth_pairs.parquet").to_pylist()
    titles = {(row["document_id"], row["image"]): row["match"] for row in pairs if row["image"]}
    queries = {(row["document_id"], row["query"]): row["match"] for row in pairs if row["query"]}
    found = []
    for row in dataset.table("image_texts").to_pylist():
        photo = images[int(row["image_id"])]
        if row["source"] == "title":
            found.append(titles.get((photo["document_id"], photo["image"]), False))
        else:
            found.append(queries.get((photo["document_id"], row["text"]), False))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--records", type=int, default=4000)
    arguments.add_argument("--mismatched", type=float, default=0.4)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments.add_argument("--cuts", type=int, nargs="+", default=[0, 20, 40, 60, 80], help="quantiles, in per cent")
    arguments.add_argument("--steps", type=int, default=240)
    chosen = arguments.parse_args()
    folder: Path = chosen.out
    folder.mkdir(parents=True, exist_ok=True)
    planted = {"mismatched": chosen.mismatched, "mismatched_queries": chosen.mismatched}
    raw = raw_records(folder / f"raw-{chosen.records}", records=chosen.records, seed=5, duplicates=0.0, **planted)
    dataset = curated(folder, raw, scorer_package(folder, 2000, 10), "calibrated")
    texts = dataset.table("image_texts")
    score, match = texts["score"].to_numpy(), np.array(matching(raw, dataset))
    limits = {cut: float(np.quantile(score, cut / 100)) if cut else -99.0 for cut in chosen.cuts}
    image = np.array(texts["image_id"].to_pylist())
    fewest = min(len(set(image[score >= limit])) for limit in limits.values())
    photos = int(0.9 * fewest)
    print(f"{len(texts):,} pairs, {match.mean():.2f} match; {photos:,} photos for every cut")
    clean = [shop(folder, seed, 800) for seed in (FIRST_SHOP, SECOND_SHOP)]
    file = str(CONFIGS / "eclip_locked.yaml")
    found: dict[int, list[list[float]]] = {cut: [] for cut in limits}
    torch.set_num_threads(2)
    seen: list[torch.Tensor] = []
    for seed in chosen.seeds:
        for cut, limit in limits.items():
            own = [*SMALL_TEXT, f"dataset={dataset.path}", f"seed={seed}"]
            own += [f"image_texts={{least_score: {limit}, photos: {photos}}}"]
            own += [f"training.epochs={max(1, round(chosen.steps * 96 / photos))}"]
            recipe = EclipRecipe.load(override(read_yaml(file), own), file)
            recipe.trunk_file = trunk_vectors.compute(recipe, folder)  # of all photos: once for a seed
            model: Any = train(recipe)
            if not seen:
                prepared = recipe.config.preprocessing.model_dump_json()
                seen = [locked(model, pixels(one.path, prepared)) for one in clean]
            found[cut].append([precision(model, recipe, *of) for of in zip(clean, seen, strict=True)])
            kept = score >= limit
            print(
                f"seed {seed}, cut {cut:2} % ({limit:.3f}): {match[kept].mean():.3f} of its pairs match, "
                f"{match[kept].sum() / match.sum():.2f} of those that match; precision {found[cut][-1]}",
                flush=True,
            )
    print("\n| cut | score | pairs that match | first shop | second shop |\n| --- | --- | --- | --- | --- |")
    means = {cut: np.array(values).mean(axis=0) for cut, values in found.items()}
    for cut, limit in limits.items():
        spread = np.array(found[cut]).std(axis=0, ddof=1) / math.sqrt(len(chosen.seeds))
        cells = " | ".join(f"{mean:.3f} ± {error:.3f}" for mean, error in zip(means[cut], spread, strict=True))
        print(f"| {cut} % | {limit:.3f} | {match[score >= limit].mean():.3f} | {cells} |")
    best = max(means, key=lambda cut: means[cut][0])
    error = float(np.array(found[best])[:, 0].std(ddof=1) / math.sqrt(len(chosen.seeds)))
    choice = min(cut for cut in means if means[cut][0] >= means[best][0] - error)
    truly = max(means, key=lambda cut: means[cut][1])
    print(f"chosen: {choice} %, best on the second shop: {truly} % ({means[choice][1]:.3f} and {means[truly][1]:.3f})")
    result = {"limits": limits, "found": found, "chosen": choice, "best": truly, "photos": photos}
    (folder / "score_threshold.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
