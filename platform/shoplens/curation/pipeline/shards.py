"""The shards of a curation, which are a dataset at the same time.

A photo is a product of the dataset: its id has the ten digits of the photo's number. `image_texts.parquet` has its
titles and queries, `queries.parquet` what was clicked.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shoplens.curation.image_text import ImageText, Query
from shoplens.curation.pipeline.choosing import SPLITS
from shoplens.curation.pipeline.config import CurationConfig
from shoplens.curation.pipeline.files import groups, read_group
from shoplens.datasets.format import SIDE_TABLES
from shoplens.datasets.images import HASH_SIDE, decode, perceptual_hash
from shoplens.datasets.photo_files import PhotoRules, Place, read_photos
from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError


def shard_names(cut: Path) -> list[tuple[str, int]]:
    """The split and the number of each shard."""
    return [(split, number) for split in SPLITS for number in range(groups(cut / "records" / f"{split}.parquet"))]


def write_shard(config: CurationConfig, cut: Path, staging: Staging, split: str, number: int, rules: PhotoRules) -> int:
    """Writes a shard and its rows of the tables unless it is done. Returns the number of its records.

    Raises ShoplensError if a photo is not what was measured.
    """
    records = read_group(cut / "records" / f"{split}.parquet", number).to_pylist()
    digits = max(3, len(str(groups(cut / "records" / f"{split}.parquet") - 1)))
    chunk = f"{split}-{number:0{digits}d}"
    if staging.is_done(chunk):
        return len(records)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in ("products", "images", *SIDE_TABLES)}
    places = [Place(row["uri"], row["root"], row["offset"], row["length"]) for row in records]
    with staging.shard(f"{chunk}.tar") as shard:
        for row, data in zip(records, read_photos(places, rules, bytes), strict=True):
            if isinstance(data, Exception) or hashlib.sha256(data).hexdigest() != row["sha256"]:
                raise ShoplensError(
                    f"the photo at {row['uri']} has changed since it was measured: "
                    "remove the folder of signals, and curate again"
                )
            data, sha256, phash = _jpeg(data, row, config.shards.quality)
            record = image_text(row)
            caption = (record.queries[0].text if record.queries else record.title) if config.shards.captions else None
            offset = shard.add(record.name, data, "jpg", record.to_json(), caption)
            place = {"shard": f"{chunk}.tar", "offset": offset}
            tables["images"].append(
                {
                    "image_id": record.name,
                    "product_id": record.name,
                    "role": "main",
                    "split": split,
                    **place,
                    "length": len(data),
                    "width": row["width"],
                    "height": row["height"],
                    "format": "jpg",
                    "sha256": sha256,
                    "phash": phash,
                }
            )
            tables["products"].append(_product(record, row, split))
            tables["image_texts"] += _texts(record, row)
            tables["queries"] += [
                {"query": query.text, "product_id": record.name, "image_id": record.name, "clicks": query.count}
                for query in record.queries
            ]
    staging.write_chunk(chunk, tables, SIDE_TABLES)
    return len(records)


def image_text(row: Mapping[str, Any]) -> ImageText:
    """The record of a row of RECORDS."""
    title = row["titles"][0] if row["titles"] else None
    further = {"source": row["source"], "sha256": row["sha256"]}
    if row["adult"] is not None:
        further["adult_score"] = row["adult"]
    if len(row["titles"]) > 1:
        further["titles"] = [text["text"] for text in row["titles"]]
    return ImageText(
        number=row["number"],
        url=row["url"] or row["image"],
        size=(row["width"], row["height"]),
        title=title["text"] if title else "",
        queries=tuple(Query(text["text"], text["clicks"], text["score"]) for text in row["queries"]),
        title_score=title["score"] if title else None,
        white=row["white"],
        watermark=row["watermark"],
        boxes=row["boxes"],
        boxes_area=row["boxes_area"],
        further=further,
    )


def _jpeg(data: bytes, row: Mapping[str, Any], quality: int) -> tuple[bytes, str, int]:
    """The bytes of the photo as JPEG, their SHA-256 and perceptual hash. A JPEG stays as it is."""
    if row["format"] == "jpg":
        return data, row["sha256"], row["phash"]
    file = io.BytesIO()
    decode(data).image.save(file, "JPEG", quality=quality)
    jpeg = file.getvalue()
    phash = perceptual_hash(decode(jpeg, draft=HASH_SIDE, grey=True).image)
    return jpeg, hashlib.sha256(jpeg).hexdigest(), phash


def _product(record: ImageText, row: Mapping[str, Any], split: str) -> dict[str, Any]:
    return {
        "product_id": record.name,
        "catalog_id": None,
        "title": (record.title or record.queries[0].text)[:2000],
        "description": "",
        "texts": [],
        "category_id": None,
        "category_path": [],
        "attributes": [],
        "price": None,
        "currency": None,
        "seller": row["source"] or None,
        "review_count": None,
        "stock": None,
        "split": split,
    }


def _texts(record: ImageText, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for source, texts in (("title", row["titles"]), ("query", row["queries"])):
        for text in texts:
            yield {
                "image_id": record.name,
                "source": source,
                "text": text["text"],
                "language": _language(text["text"]),
                "count": text["clicks"],
                "score": text["score"] if text["value"] is None else text["value"],
            }


def _language(text: str) -> str:
    """`ko` if the text has Hangul, else `en`: texts of other scripts are not kept."""
    return "ko" if any("가" <= character <= "힣" for character in text) else "en"
