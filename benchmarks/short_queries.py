"""Precision of short queries on a synthetic shop, by the shop's own attributes.

    python benchmarks/short_queries.py SHOP --model eclip@champion        # a registered model (MLFLOW_TRACKING_URI)
    python benchmarks/short_queries.py OUT --seeds 7 8 9                  # trains as `make demo` does, a shop each

Queries are the names of every leaf category in English and Korean, the further Korean words for it, and a colour or a
pattern with the name, where at least 3 photos are right. They come from the vocabulary that the shop was drawn with, not from its titles. A
query's precision is that of its first 10 photos, or of as many as can be right. Photos: all of the shop, and those of the
splits val and test, which no model was trained on.

With --seeds, OUT receives the shops and `short_queries_PRODUCTS.json`; --without says what each part of the training gives.
Duration with one seed of 2,000 products on 2 cores: about 4 minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from small_models import CONFIGS, pixels, train

PLACES, LEAST_RIGHT = 10, 3
TEXTS = "training_texts=[[title_ko],[title_en],[category]]"
WITHOUT = {
    "nothing": (),
    "short queries": ("queries=null",),
    "words of titles": ("queries.sources=[names]",),
    "stages": ("model.image.pooling=last",),
    "clean texts": ("training_texts=[]",),
}
"""What the training goes without -> settings."""


class Query(NamedTuple):
    text: str
    language: str
    category: str
    attribute: str | None = None
    value: str | None = None

    @property
    def kind(self) -> str:
        return "thing" if self.attribute is None else f"{self.attribute} and thing"


def queries(shop: Any) -> Iterator[Query]:
    from shoplens.synthetic.departments import LEAVES_OF_SHOP
    from shoplens.synthetic.vocabulary import COLOURS, PATTERNS

    id_of = {node.path: node.id for node in shop.categories}
    values = {"colour": {name: colour.word for name, colour in COLOURS.items()}, "pattern": PATTERNS}
    for leaf in LEAVES_OF_SHOP:
        names = {"en": [leaf.words.en], "ko": [leaf.words.korean], "ko, further words": leaf.words.ko[1:]}
        for language, spoken in names.items():
            for word in spoken:
                yield Query(word, language, id_of[leaf.path])
        for attribute, words in values.items():
            for value, word in words.items():
                yield Query(f"{word.en} {leaf.words.en}", "en", id_of[leaf.path], attribute, value)
                yield Query(f"{word.ko[-1]} {leaf.words.korean}", "ko", id_of[leaf.path], attribute, value)


def table(shop: Any, photos: np.ndarray, encode: Callable[[Sequence[str]], np.ndarray]) -> list[dict[str, Any]]:
    """Mean precision by photos, language and kind of query."""
    products = shop.products.select(["category_id", "attributes"]).to_pylist()
    category = np.array([products[row]["category_id"] for row in shop.product_row])
    own = [dict(products[row]["attributes"]) for row in shop.product_row]
    values = {attribute: np.array([each[attribute][0] for each in own]) for attribute in ("colour", "pattern")}
    held_out = np.array(shop.images["split"].to_pylist()) != "train"
    asked = list(queries(shop))
    vectors = encode([query.text for query in asked])
    found: dict[tuple[str, str, str], list[float]] = {}
    for name, rows in (("all", np.arange(len(photos))), ("held out", np.flatnonzero(held_out))):
        scores = vectors @ photos[rows].T
        for query, row in zip(asked, scores, strict=True):
            right = category[rows] == query.category
            if query.attribute is not None:
                right &= values[query.attribute][rows] == query.value
            if right.sum() >= LEAST_RIGHT:
                places = min(PLACES, right.sum())
                first = right[np.argsort(-row, kind="stable")[:PLACES]]
                found.setdefault((name, query.language, query.kind), []).append(first.sum() / places)
    return [
        {
            "photos": key[0],
            "language": key[1],
            "query": key[2],
            "queries": len(values),
            "precision": float(np.mean(values)),
        }
        for key, values in found.items()
    ]


def markdown(tables: Sequence[Sequence[dict[str, Any]]]) -> str:
    """One line for the same row of every seed's table: the mean, and the least and the largest."""
    lines = ["| photos | language | query | queries | precision at 10 |", "| --- | --- | --- | --- | --- |"]
    for rows in zip(*tables, strict=True):
        found = [row["precision"] for row in rows]
        between = f" ({min(found):.3f} to {max(found):.3f})" if len(found) > 1 else ""
        line = "| {photos} | {language} | {query} | {queries} | ".format(**rows[0])
        lines.append(f"{line}{statistics.mean(found):.3f}{between} |")
    return "\n".join(lines)


def of_registered(shop: Any, reference: str) -> list[dict[str, Any]]:
    from shoplens.packages.embedder import Embedder
    from shoplens.registry import versions

    embedder = Embedder.load(versions.download(versions.resolve(reference), versions.cache_dir()))
    return of_model(shop, embedder)


def of_model(shop: Any, embedder: Any) -> list[dict[str, Any]]:
    every = pixels(shop.path, embedder.preprocessing.model_dump_json())
    return table(shop, embedder.encode_images(every, 128), embedder.encode_texts)


def trained(out: Path, seed: int, products: int, settings: Sequence[str]) -> tuple[list[dict[str, Any]], float]:
    """The table of a model that is trained as in `make demo`, and the seconds of its training."""
    import torch

    from shoplens.config import override, read_yaml
    from shoplens.datasets.format import Dataset
    from shoplens.recipes.eclip import EclipRecipe
    from shoplens.synthetic import SyntheticShop, synthesize
    from shoplens.training import trunk_vectors

    shop = out / f"shop-{products}-{seed}"
    if not (shop / "manifest.json").exists():
        synthesize(shop, SyntheticShop(products=products, seed=seed))
    config = str(CONFIGS / "eclip_locked.yaml")
    began = time.monotonic()
    own = [f"dataset={shop}", f"seed={seed}", TEXTS, *settings]
    recipe = EclipRecipe.load(override(read_yaml(config), own), config)
    torch.set_num_threads(2)
    recipe.trunk_file = trunk_vectors.compute(recipe, out / "trunk_vectors")
    embedder = recipe.package(train(recipe))
    return of_model(Dataset(str(shop)), embedder), time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="SHOP|OUT", help="the shop of --model, or where --seeds writes")
    parser.add_argument("--model", help="registered model, such as eclip@champion")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7], help="a shop and a training for each")
    parser.add_argument("--products", type=int, default=2000)
    parser.add_argument("--without", choices=WITHOUT, nargs="+", default=["nothing"])
    parser.add_argument(
        "--settings", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of the training"
    )
    options = parser.parse_args()
    if options.model:
        from shoplens.datasets.format import Dataset

        print(markdown([of_registered(Dataset(str(options.folder)), options.model)]))
        return
    results = []
    for without in options.without:
        runs = []
        for seed in options.seeds:
            rows, seconds = trained(options.folder, seed, options.products, [*WITHOUT[without], *options.settings])
            runs.append(rows)
            results.append({"without": without, "seed": seed, "seconds": seconds, "table": rows})
            print(f"\nwithout {without}, seed {seed}, {seconds:.0f} s:\n\n{markdown([rows])}", flush=True)
            about = {"products": options.products, "settings": options.settings, "results": results}
            (options.folder / f"short_queries_{options.products}.json").write_text(json.dumps(about, indent=1))
        print(f"\nwithout {without}, mean of {len(runs)} seed(s):\n\n{markdown(runs)}", flush=True)


if __name__ == "__main__":
    main()
