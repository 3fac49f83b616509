"""How many places of the lists of similar products repeat a product, in truth and by what the shop knows?

    python benchmarks/repeated_products.py OUT [--products 2000 20000] [--missing 0 0.1 0.3 0.5]

On synthetic shops, which tell what a listing truly is: 2 % of the offers are listed under a wrong catalog, 2 % under none,
and the share `--missing` of them does not state its model code. The list of every product, as `POST /v1/similar` answers
it, with listings made one product by their catalogs alone and by the maker's numbers too (`Rules.identifiers`); vectors of
an e-CLIP trained here on another shop. Shops and e-CLIP are kept in --runs. OUT gets `repeated_products.json` and
`repeated_products.md`: per cent of places, 95 % intervals over redrawn lists, of clicks over redrawn users.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ablation import pixels
from clik_arms import base, synthetic

WAYS: dict[str, dict[str, Any]] = {"catalogs alone": {"identifiers": ()}, "and the maker's numbers": {}}
K = 20
SHOWN = {
    "full": "seeds that get 20",
    "violations": "break a rule",
    "duplicates_product": "repeat a product, as the rules have it",
    "duplicates_component": "repeat a component",
    "duplicates_photo": "repeat a photo's hash",
    "duplicates_truth": "truly repeat a product",
    "itself_truth": "are truly the seed's product",
    "leakage_leaf": "from another category",
    "catalog/coverage": "products in some list",
    "clicks/hit": "what a user clicks next is in the list, of clicks",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--products", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--missing", type=float, nargs="+", default=[0.0, 0.1, 0.3, 0.5])
    parser.add_argument("--base-samples", type=int, default=200_000, help="photos that the e-CLIP is trained on")
    parser.add_argument("--runs", type=Path, default=Path("data/repeated_products"))
    options = parser.parse_args()

    package = options.runs / f"eclip-{options.base_samples}"
    options.runs.mkdir(parents=True, exist_ok=True)
    print(f"e-CLIP: {base(str(synthetic(options.runs, 20_000)), package, options.base_samples)}", flush=True)
    found = []
    for products in options.products:
        vectors = None
        for missing in options.missing:
            shop = shop_of(options.runs, products, missing)
            if vectors is None:  # what is not stated changes no photo
                vectors = encoded(package, shop)
            for way, figures in judged(shop, vectors).items():
                found.append({"products": products, "missing": missing, "way": way, "figures": figures})
                print(json.dumps(found[-1]), flush=True)
    result = {"command": " ".join(["python", *sys.argv]), "k": K, "found": found}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "repeated_products.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.out / "repeated_products.md").write_text(table(result))
    print(options.out / "repeated_products.md")


def shop_of(folder: Path, products: int, missing: float) -> Path:
    from shoplens.synthetic import SyntheticShop, synthesize

    out = folder / f"judged-{products}-{missing:g}"
    if not out.exists():
        synthesize(out, SyntheticShop.of(products=products, missing_model_code=missing), name="judged")
    return out


def encoded(package: Path, shop: Path) -> np.ndarray:
    """float32 [photos, d]."""
    from shoplens.packages.embedder import Embedder

    embedder = Embedder.load(package)
    photos = pixels(str(shop), embedder.preprocessing.model_dump_json())
    parts = [embedder.encode_images(photos[at : at + 256]) for at in range(0, len(photos), 256)]
    return np.concatenate(parts).astype(np.float32)


def judged(shop: Path, vectors: np.ndarray) -> dict[str, dict[str, list[float]]]:
    """Of each of `WAYS`, by `SHOWN`: the value, and its interval where it has one."""
    from shoplens.datasets.format import Dataset
    from shoplens.search.build import build
    from shoplens.search.lists.evaluation import ListsConfig, LogConfig, judge, log_of_sessions, make
    from shoplens.search.lists.shop import Shop
    from shoplens.search.rules import Rules

    dataset, found = Dataset(str(shop)), {}
    log = log_of_sessions(dataset.table("interactions"), LogConfig(clicks="session"))
    with tempfile.TemporaryDirectory() as scratch:
        index = build(f"{scratch}/index", dataset, np.arange(len(vectors)), vectors, {"model": "eclip"}).index
        for way, settings in WAYS.items():
            config = ListsConfig(k=K, rules=Rules(**settings))
            known = Shop.of(dataset, [index], config.rules)
            metrics = judge(make(index, known, config), known, config, log).evaluation({"model": "eclip"}).metrics
            of_name = {name: metrics[f"lists/{name}@{K}"] for name in SHOWN if f"lists/{name}@{K}" in metrics}
            found[way] = {
                name: [one.value] if np.isnan(one.low) else [one.value, one.low, one.high]
                for name, one in of_name.items()
            }
    return found


def table(result: dict[str, Any]) -> str:
    whole = [row for row in result["found"] if row["missing"] == min(row["missing"] for row in result["found"])]
    lines = ["# Products repeated in lists of similar products", "", f"`{result['command']}`", ""]
    lines += ["| per cent | " + " | ".join(f"{row['products']:,} products, {row['way']}" for row in whole) + " |"]
    lines += ["| --- |" + " --- |" * len(whole)]
    for name, words in SHOWN.items():
        lines += [f"| {words} | " + " | ".join(told(row["figures"].get(name)) for row in whole) + " |"]
    lines += ["", "Places that truly repeat a product, where a share of the offers does not state its model code:", ""]
    shares = sorted({row["missing"] for row in result["found"]})
    lines += ["| | " + " | ".join(f"{100 * share:g} %" for share in shares) + " |", "| --- |" + " --- |" * len(shares)]
    for row in whole:
        same = {
            other["missing"]: other["figures"]["duplicates_truth"]
            for other in result["found"]
            if (other["products"], other["way"]) == (row["products"], row["way"])
        }
        cells = " | ".join(told(same[share]) for share in shares)
        lines += [f"| {row['products']:,} products, {row['way']} | {cells} |"]
    return "\n".join(lines) + "\n"


def told(figure: list[float] | None) -> str:
    if figure is None:
        return ""
    value, *ends = (f"{100 * one:.2f}" for one in figure)
    return f"{value} ({' to '.join(ends)})" if len(set(ends)) > 1 else value


if __name__ == "__main__":
    main()
