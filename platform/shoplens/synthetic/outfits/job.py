"""Synthesis of a dataset of outfits in parallel processes. A range of outfits is one chunk of the dataset."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import PIL
import pyarrow as pa
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shoplens.datasets.format import Dataset
from shoplens.datasets.garments import GARMENTS, encode_mask, mask_box
from shoplens.datasets.staging import Shard, Staging
from shoplens.schema import Product
from shoplens.synthetic import titles
from shoplens.synthetic.appeal import appeal
from shoplens.synthetic.catalogue import stream
from shoplens.synthetic.outfits.outfit import PHOTO, SALE, Garment, Outfit, draw_outfit, words_of
from shoplens.synthetic.outfits.scene import Layer, Scene, layers_of, photograph_layers
from shoplens.synthetic.outfits.settings import Outfits
from shoplens.synthetic.outfits.wardrobe import KEYS, OTHER_KEYS, PIECES, RARE, values
from shoplens.synthetic.photography import View, view
from shoplens.synthetic.processes import in_parallel
from shoplens.synthetic.rows import category_id, image_row, opaque_id, product_row
from shoplens.synthetic.sellers import Seller, seller
from shoplens.synthetic.surfaces import paint
from shoplens.synthetic.vocabulary import COLOURS, MATERIALS, Word

OUTFITS_PER_CHUNK = 50
ATTRIBUTE_WORDS = pa.schema(
    [
        ("part", pa.string()),
        ("part_ko", pa.string()),
        ("category", pa.list_(pa.string())),
        ("key", pa.string()),
        ("key_ko", pa.string()),
        ("value", pa.string()),
        ("value_ko", pa.string()),
        ("rare", pa.bool_()),
        ("held_out", pa.bool_()),
    ]
)
"""Columns of `attribute_words.parquet`: one row a category, key and value that a photo of an outfit shows.

part, part_ko   the part of the outfit, as a user types it
category        path of the leaf category
rare            few garments have the value
held_out        no garment outside the split `test` has it"""
EXTRA = {"garments": GARMENTS, "attribute_words": ATTRIBUTE_WORDS}


def synthesize_outfits(
    out: str | os.PathLike[str],
    settings: Outfits | None = None,
    *,
    name: str = "outfits",
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Makes the dataset in folder `out`, with `garments.parquet` and `attribute_words.parquet`.

    workers   processes to spawn; default: the number of CPUs, at most one a chunk. 1 works in this process

    The result does not depend on the number of workers. After an interruption, the same call resumes.
    Raises ShoplensError if `out` exists and `overwrite` is not set, or if a worker process dies.
    """
    settings = settings or Outfits()
    versions = {"shoplens": version("shoplens"), "numpy": np.__version__, "pillow": PIL.__version__}
    provenance = {"source": "synthetic outfits", "options": settings.model_dump(mode="json"), "versions": versions}
    staging = Staging(str(out), provenance)
    staging.begin(overwrite)
    chunks = range(-(-settings.outfits // OUTFITS_PER_CHUNK))
    with Progress(
        TextColumn("drawing outfits"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        disable=not progress,
    ) as bar:
        task = bar.add_task("", total=settings.outfits)
        todo = [chunk for chunk in chunks if not staging.is_done(_name(chunk))]
        bar.advance(task, settings.outfits - sum(len(_outfits_in(settings, chunk)) for chunk in todo))
        tasks = [partial(_make_chunk, settings, staging, chunk) for chunk in todo]
        for made in in_parallel(tasks, min(workers or os.cpu_count() or 1, len(tasks)), "the outfits"):
            bar.advance(task, made)
    return staging.finish(name, provenance, extra=EXTRA)


def _name(chunk: int) -> str:
    return f"{chunk:06d}"


def _outfits_in(settings: Outfits, chunk: int) -> range:
    return range(chunk * OUTFITS_PER_CHUNK, min((chunk + 1) * OUTFITS_PER_CHUNK, settings.outfits))


def _make_chunk(settings: Outfits, staging: Staging, chunk: int) -> int:
    """Draws and writes one range of outfits, grouped by split. Returns the number of outfits."""
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in ("products", "images", *EXTRA)}
    numbers = _outfits_in(settings, chunk)
    with ExitStack() as files:
        for split in ("train", "val", "test"):
            of_split = [number for number in numbers if settings.split(number) == split]
            if of_split:
                name = f"{split}-{_name(chunk)}.tar"
                shard = files.enter_context(staging.shard(name))
                for number in of_split:
                    _add_outfit(settings, draw_outfit(settings, number), shard, name, rows)
    if chunk == 0:
        rows["attribute_words"] = list(attribute_words(settings))
    staging.write_chunk(_name(chunk), rows, extra=EXTRA)
    return len(numbers)


def _add_outfit(
    settings: Outfits, outfit: Outfit, shard: Shard, shard_name: str, rows: dict[str, list[dict[str, Any]]]
) -> None:
    """Adds the photo of an outfit, and each garment as a product with a photo of its own.

    The photo belongs to one of the products, as in a shop; `garments` names all that it shows.
    """
    rng = stream(settings.seed, PHOTO, outfit.number)
    lead = int(rng.integers(len(outfit.garments)))
    products = []
    for garment in outfit.garments:
        drawn = stream(settings.seed, SALE, garment.number)
        by = seller(settings.seed, int(drawn.integers(settings.sellers)))
        product = _product(settings, garment, by, drawn)
        products.append((product, by))
        rows["products"].append(product_row(product))
        upright = garment.design.leaf.upright
        taken = view(by.photo, upright, True, drawn)
        layer = Layer(paint(garment.design, 2 * settings.image_size), 1)
        scene = photograph_layers([layer], by.photo, taken, upright, settings.image_size)
        _add_photo(scene, f"{product.id}-0", "main", (product, by), [(1, product, garment)], shard, shard_name, rows)
    scene = photograph_outfit(outfit, products[lead][1], settings.image_size, rng)
    shown = [(owner, products[owner - 1][0], garment) for owner, garment in enumerate(outfit.garments, 1)]
    image_id = opaque_id("O", outfit.number, settings.seed)
    _add_photo(scene, image_id, "outfit", products[lead], shown, shard, shard_name, rows)


def photograph_outfit(outfit: Outfit, by: Seller, size: int, rng: np.random.Generator) -> Scene:
    """The photo of an outfit in the style of a seller, with the whole figure in the frame."""
    return photograph_layers(layers_of(outfit, size), by.photo, _whole_figure(by, rng), True, size)


def _whole_figure(by: Seller, rng: np.random.Generator) -> View:
    taken = view(by.photo, True, True, rng)
    return replace(taken, fill=min(max(taken.fill, 0.93), 1.0), shift=(taken.shift[0], 0.01))


def _add_photo(
    scene: Scene,
    image_id: str,
    role: str,
    of: tuple[Product, Seller],
    shown: list[tuple[int, Product, Garment]],
    shard: Shard,
    shard_name: str,
    rows: dict[str, list[dict[str, Any]]],
) -> None:
    product, by = of
    file = io.BytesIO()
    scene.photo.save(file, "JPEG", quality=by.photo.jpeg_quality)
    data = file.getvalue()
    offset = shard.add(image_id, data, "jpg", product.to_json())
    rows["images"].append(image_row(product, image_id, role, shard_name, offset, data, scene.photo.size))
    for owner, worn, garment in shown:
        mask = scene.owner == owner
        if mask.any():
            rows["garments"].append(
                {
                    "image_id": image_id,
                    "product_id": worn.id,
                    "part": garment.piece.part,
                    "layer": owner,
                    "box": mask_box(mask),
                    "area": float(mask.mean()),
                    "visible": scene.visible[owner],
                    "mask": encode_mask(mask),
                }
            )


def _product(settings: Outfits, garment: Garment, by: Seller, rng: np.random.Generator) -> Product:
    design = garment.design
    worth = appeal(design, by, rng)
    attributes = titles.attributes(design) if settings.language == "en" else korean_attributes(garment)
    return Product(
        id=opaque_id("P", garment.number, settings.seed),
        catalog_id=opaque_id("C", garment.number, settings.seed),
        title=titles.seller_title(design, by, rng),
        description=titles.description(design),
        texts=titles.clean_titles(design),
        category_path=design.leaf.path,
        category_id=category_id(design),
        attributes=attributes,
        price=worth.price,
        currency="KRW",
        seller=by.name,
        review_count=worth.review_count,
        stock=None,
        split=design.split,
    )


def korean_attributes(garment: Garment) -> dict[str, tuple[str, ...]]:
    """The true attributes of a garment with keys and values in Korean."""
    design = garment.design
    others = {
        "brand": design.brand,
        "accent colour": COLOURS[design.accent].word,
        "material": MATERIALS[design.material].word,
        "group": design.leaf.group,
        "model code": Word(design.model_code, (design.model_code,)),
    }
    return {{**KEYS, **OTHER_KEYS}[key]: (word.korean,) for key, word in {**others, **words_of(design)}.items()}


def attribute_words(settings: Outfits) -> Iterator[dict[str, Any]]:
    """The rows of `attribute_words.parquet`."""
    for piece in PIECES:
        for key, known in values(piece).items():
            for word in known:
                yield {
                    "part": piece.part,
                    "part_ko": piece.word.korean,
                    "category": list(piece.leaf.path),
                    "key": key,
                    "key_ko": KEYS[key],
                    "value": word.en,
                    "value_ko": word.korean,
                    "rare": word.en in RARE,
                    "held_out": word.en in settings.held_out,
                }
