"""Small shops for the tests of the importers, and an import without Ray."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

from shoplens.datasets.format import Dataset
from shoplens.datasets.importing import PhotoRules
from shoplens.datasets.importing.plan import plan_import
from shoplens.datasets.importing.shards import reopen_repeated, write_shard
from shoplens.datasets.importing.shoppers import ShopperTables
from shoplens.datasets.importing.source import Source
from shoplens.datasets.staging import Staging


def jpeg(seed: int, side: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (4, 4), random.Random(seed).randbytes(48)).resize((side, side)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_table(folder: Path, rows: list[Any], name: str = "products.jsonl") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / name)


def shop(folder: Path, products: int = 6, photos: int = 2) -> str:
    """A small good shop; every photo its own file, split by product."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for p in range(products):
        names = [f"images/{p}_{k}.jpg" for k in range(photos)]
        for k, name in enumerate(names):
            (folder / name).write_bytes(jpeg(100 * p + k))
        rows.append(
            {
                "id": f"p{p}",
                "catalog_id": f"c{p // 2}",
                "name": f"상품 {p}",
                "category_path": ["Clothing", ["Shirts", "Hats"][p % 2]],
                "attributes": {"color": "red", "sizes": ["S", "M"], "year": 2020},
                "price": 10.5,
                "stock": 3 * p,
                "images": names,
                "split": ["train", "test"][p % 3 == 0],
            }
        )
    return write_table(folder, rows)


def run_here(
    source: Source,
    out: Path,
    rules: PhotoRules | None = None,
    per_shard: int = 1000,
    seed: int = 0,
    shoppers: ShopperTables = ShopperTables(),
) -> Dataset:
    """The same import without Ray, chunks in a random order."""
    staging = Staging(str(out), {"test": seed})
    staging.begin()
    chunks = list(plan_import(source, staging, per_shard, shoppers=shoppers))
    random.Random(seed).shuffle(chunks)
    while waiting := [chunk for chunk in chunks if not staging.is_done(chunk)] or reopen_repeated(staging, chunks):
        for chunk in waiting:
            write_shard(staging, chunk, rules or PhotoRules())
    return staging.finish(source.name, {})


def rejects(dataset: Dataset) -> list[tuple[str, str, str | None, str | None]]:
    rows = dataset.table("rejects").to_pylist()
    assert all(row["detail"] for row in rows)
    return [(row["reason"], row["source"], row["product_id"], row["image"]) for row in rows]
