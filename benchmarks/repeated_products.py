"""Repeated products in lists of similar products: by catalogs alone, against catalogs and the maker's numbers.

    python benchmarks/repeated_products.py OUT [--products 2000 20000] [--missing 0 0.1 0.3 0.5]

The synthetic shops know the true product of every listing. In each, 2 % of the offers carry a wrong catalog id, 2 % carry
none, and a share of `--missing` does not state a model code. Every product's list of 20 is made as `POST /v1/similar`
makes it, under two rules of product identity: the catalog alone, or also the maker's numbers (`Rules.identifiers`). The
vectors come from an e-CLIP that is trained here on another shop.

OUT receives `repeated_products.json` and `repeated_products.md`: per cent of places, with 95 % intervals, a bootstrap over
lists; for clicks over users.

Duration at the default size on 2 cores: about 20 minutes (estimate). The folder --runs keeps shops and e-CLIP.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from arms import command
from small_models import pixels, synthetic_topic_shop, train_eclip

WAYS: dict[str, dict[str, Any]] = {"catalogs alone": {"identifiers": ()}, "and the maker's numbers": {}}
K = 20
SHOWN = {
    "full": "seeds with 20 similar products",
    "violations": "break a rule",
    "duplicates_product": "repeat a product, by the rules",
    "duplicates_component": "repeat a component",
    "duplicates_photo": "repeat a photo hash",
    "duplicates_truth": "truly repeat a product",
    "itself_truth": "are truly the seed product",
    "leakage_leaf": "from another category",
    "catalog/coverage": "products in at least one list",
    "clicks/hit": "clicks whose next product is in the list",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--products", type=int, nargs="+", default=[2000, 20_000], help="products of each shop")
    parser.add_argument(
        "--missing", type=float, nargs="+", default=[0.0, 0.1, 0.3, 0.5], help="shares of offers without a model code"
    )
    parser.add_argument("--base-samples", type=int, default=200_000, help="training photos that the e-CLIP sees")
    parser.add_argument("--runs", type=Path, default=Path("data/repeated_products"), help="folder of shops and e-CLIP")
    options = parser.parse_args()

    package = options.runs / f"eclip-{options.base_samples}"
    shop = synthetic_topic_shop(options.runs, 20_000)
    print(f"e-CLIP: {train_eclip(str(shop), package, options.base_samples)}", flush=True)
    rows = []
    for products in options.products:
        vectors = None
        for missing in options.missing:
            shop = synthetic_shop(options.runs, products, missing)
            if vectors is None:  # a missing model code changes no photo
                vectors = encode_photos(package, shop)
            for way, figures in evaluate_lists(shop, vectors).items():
                rows.append({"products": products, "missing": missing, "way": way, "figures": figures})
                print(json.dumps(rows[-1]), flush=True)
    result = {"command": command(), "k": K, "found": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "repeated_products.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "repeated_products.md").write_text(table(result))
    print(options.out / "repeated_products.md")


def synthetic_shop(folder: Path, products: int, missing: float) -> Path:
    from shoplens.synthetic import SyntheticShop, synthesize

    out = folder / f"judged-{products}-{missing:g}"
    if not out.exists():
        synthesize(out, SyntheticShop(products=products, missing_model_code=missing), name="judged")
    return out


def encode_photos(package: Path, shop: Path) -> np.ndarray:
    """Vectors of all photos, float32 [photos, d]."""
    from shoplens.packages.embedder import Embedder

    embedder = Embedder.load(package)
    photos = pixels(str(shop), embedder.preprocessing.model_dump_json())
    parts = [embedder.encode_images(photos[at : at + 256]) for at in range(0, len(photos), 256)]
    return np.concatenate(parts).astype(np.float32)


def evaluate_lists(shop: Path, vectors: np.ndarray) -> dict[str, dict[str, list[float]]]:
    """Figures of each of `WAYS` by the names of `SHOWN`: [value], or [value, low, high]."""
    from shoplens.datasets.format import Dataset
    from shoplens.search.build import build
    from shoplens.search.lists.evaluation import ListsConfig, LogConfig, judge, log_of_sessions, make
    from shoplens.search.lists.shop import Shop
    from shoplens.search.rules import Rules

    dataset, figures = Dataset(str(shop)), {}
    log = log_of_sessions(dataset.table("interactions"), LogConfig(clicks="session"))
    with tempfile.TemporaryDirectory() as scratch:
        index = build(f"{scratch}/index", dataset, np.arange(len(vectors)), vectors, {"model": "eclip"}).index
        for way, settings in WAYS.items():
            config = ListsConfig(k=K, rules=Rules(**settings))
            known = Shop.of(dataset, [index], config.rules)
            metrics = judge(make(index, known, config), known, config, log).evaluation({"model": "eclip"}).metrics
            shown = {name: metrics[f"lists/{name}@{K}"] for name in SHOWN if f"lists/{name}@{K}" in metrics}
            figures[way] = {
                name: [metric.value] if np.isnan(metric.low) else [metric.value, metric.low, metric.high]
                for name, metric in shown.items()
            }
    return figures


def table(result: dict[str, Any]) -> str:
    """Markdown: every figure at the smallest share of missing codes, then the true repetition at each share."""
    whole = [row for row in result["found"] if row["missing"] == min(row["missing"] for row in result["found"])]
    lines = ["# Products repeated in lists of similar products", "", f"`{result['command']}`", ""]
    lines += ["| per cent | " + " | ".join(f"{row['products']:,} products, {row['way']}" for row in whole) + " |"]
    lines += ["| --- |" + " --- |" * len(whole)]
    for name, words in SHOWN.items():
        lines += [f"| {words} | " + " | ".join(cell(row["figures"].get(name)) for row in whole) + " |"]
    lines += ["", "Places that truly repeat a product, by the share of the offers without a model code:", ""]
    shares = sorted({row["missing"] for row in result["found"]})
    lines += ["| | " + " | ".join(f"{100 * share:g} %" for share in shares) + " |", "| --- |" + " --- |" * len(shares)]
    for row in whole:
        same = {
            other["missing"]: other["figures"]["duplicates_truth"]
            for other in result["found"]
            if (other["products"], other["way"]) == (row["products"], row["way"])
        }
        cells = " | ".join(cell(same[share]) for share in shares)
        lines += [f"| {row['products']:,} products, {row['way']} | {cells} |"]
    return "\n".join(lines) + "\n"


def cell(figure: list[float] | None) -> str:
    if figure is None:
        return ""
    value, *ends = (f"{100 * one:.2f}" for one in figure)
    return f"{value} ({' to '.join(ends)})" if len(set(ends)) > 1 else value


if __name__ == "__main__":
    main()
