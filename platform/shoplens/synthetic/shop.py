"""Synthesis of the shop in parallel processes. Each makes ranges of catalogs; a range is one chunk of the dataset."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import PIL
import pyarrow as pa
from pydantic import Field, model_validator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shoplens.config import Config
from shoplens.datasets.format import Dataset
from shoplens.datasets.staging import Shard, Staging
from shoplens.schema import Product
from shoplens.synthetic import titles
from shoplens.synthetic.appeal import appeal, click_probability
from shoplens.synthetic.catalogue import CHUNK, OFFER, Catalogue, stream
from shoplens.synthetic.flaws import FLAWS, PHOTO_FLAWS, spoil_photo, with_personal_data
from shoplens.synthetic.interactions import Offer, log, plant_topics
from shoplens.synthetic.photography import photograph, view
from shoplens.synthetic.processes import in_parallel
from shoplens.synthetic.rows import category_id, image_row, opaque_id, product_row
from shoplens.synthetic.sellers import seller, styled
from shoplens.synthetic.surfaces import paint

CATALOGS_PER_CHUNK = 200
SOLD_OUT, UNKNOWN_STOCK, MEAN_STOCK = 0.06, 0.10, 20
"""Shares of offers that are sold out or of unknown stock, and the mean stock of the others in pieces."""

TRUTH = pa.schema(
    [
        ("product_id", pa.string()),
        ("true_catalog_id", pa.string()),
        ("catalog_number", pa.int64()),
        ("listed_catalog", pa.string()),
        ("attractiveness", pa.float64()),
        ("click_probability", pa.float64()),
        ("photo_style", pa.string()),
        ("title_style", pa.string()),
        ("backdrop", pa.string()),
        ("viewpoints", pa.list_(pa.string())),
        ("looks", pa.list_(pa.string())),
        ("seasons", pa.list_(pa.string())),
        ("flaws", pa.list_(pa.string())),
        ("relist_of", pa.string()),
    ]
)
"""Columns of `truth.parquet`, the facts that the dataset does not state.

listed_catalog             `true`, `wrong` or `missing`
photo_style, title_style   names of the sellers whose styles the photos and the title have
click_probability          at position 0 of a category page
relist_of                  the product that this one repeats, or null"""


class SyntheticShop(Config):
    """Settings of a synthetic shop. Equal settings give equal shops."""

    products: int = Field(
        default=2000, ge=1, le=100_000_000, description="Offers; each is one row of products.parquet."
    )
    seed: int = Field(default=7, ge=0, description="Seed of all random draws.")
    sellers: int = Field(
        default=24, ge=1, le=4096, description="Sellers; at least 2 * `offers_per_catalog` - 1 are needed."
    )
    offers_per_catalog: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Mean number of offers of a catalog. With m, a catalog has 1 to 2 m - 1 offers.",
    )
    seller_style: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Probability that a photo or title has its own seller's style; else the style of a random seller.",
    )
    catalog_noise: float = Field(
        default=0.02, ge=0, le=1, description="Share of offers that carry the id of another catalog."
    )
    missing_catalog: float = Field(default=0.02, ge=0, le=1, description="Share of offers without a catalog id.")
    missing_model_code: float = Field(
        default=0.0, ge=0, le=1, description="Share of offers without the attribute `model code`."
    )
    duplicates: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of offers, except a catalog's first, that repeat an earlier offer with its photo and title.",
    )
    flaws: float = Field(
        default=0.0, ge=0, le=1, description="Share of offers with a flaw in photos or title, such as a watermark."
    )
    review_noise: float = Field(
        default=0.5,
        ge=0,
        le=3,
        description="Standard deviation of the noise that is added to the logarithm of the expected review count.",
    )
    image_size: int = Field(default=128, ge=48, le=1024, description="Width and height of a photo in pixels.")
    photos_per_product: int = Field(default=1, ge=1, le=8, description="Photos of each offer.")
    impressions_per_product: float = Field(
        default=8.0, ge=0, le=1000, description="Mean number of logged impressions of an offer."
    )
    val: float = Field(default=0.1, ge=0, lt=1, description="Share of catalogs in the split `val`.")
    test: float = Field(default=0.1, ge=0, lt=1, description="Share of catalogs in the split `test`.")

    @model_validator(mode="after")
    def _fits_together(self) -> SyntheticShop:
        if self.sellers < 2 * self.offers_per_catalog - 1:
            raise ValueError(
                f"catalogs of up to {2 * self.offers_per_catalog - 1} offers need as many sellers, not {self.sellers}"
            )
        if self.val + self.test >= 1:
            raise ValueError("val and test together leave nothing to train on: their sum must be less than 1")
        if self.catalog_noise + self.missing_catalog > 1:
            raise ValueError("catalog_noise and missing_catalog are shares: their sum may not exceed 1")
        return self

    @property
    def catalogue(self) -> Catalogue:
        """The catalogs of this shop."""
        splits = (("train", 1 - self.val - self.test), ("val", self.val), ("test", self.test))
        return Catalogue(self.seed, self.products, self.offers_per_catalog, splits)


def synthesize(
    out: str | os.PathLike[str],
    shop: SyntheticShop | None = None,
    *,
    name: str = "synthetic",
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Dataset:
    """Makes the shop in folder `out`, with its `truth.parquet`. The result does not depend on the number of workers.

    workers   processes to spawn; default: the number of CPUs, at most one a chunk. 1 works in this process

    After an interruption, the same call resumes.
    Raises ShoplensError if `out` exists and `overwrite` is not set, or if a worker process dies.
    """
    shop = shop or SyntheticShop()
    versions = {"shoplens": version("shoplens"), "numpy": np.__version__, "pillow": PIL.__version__}
    provenance = {"source": "synthetic shop", "options": shop.model_dump(), "versions": versions}
    staging = Staging(str(out), provenance)
    staging.begin(overwrite)
    chunks = -(-shop.catalogue.catalogs // CATALOGS_PER_CHUNK)
    with Progress(
        TextColumn("drawing the shop"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("products"),
        TimeRemainingColumn(),
        disable=not progress,
    ) as bar:
        task = bar.add_task("", total=shop.products)
        todo = []
        for chunk in range(chunks):
            if staging.is_done(_name(chunk)):
                bar.advance(task, _offers_in(shop.catalogue, chunk))
            else:
                todo.append(chunk)
        tasks = [partial(make_chunk, shop, staging, chunk) for chunk in todo]
        for made in in_parallel(tasks, min(workers or os.cpu_count() or 1, len(tasks)), "the shop"):
            bar.advance(task, made)
    return staging.finish(name, provenance, extra={"truth": TRUTH})


def _name(chunk: int) -> str:
    return f"{chunk:06d}"


def _catalogs_in(catalogue: Catalogue, chunk: int) -> range:
    return range(chunk * CATALOGS_PER_CHUNK, min((chunk + 1) * CATALOGS_PER_CHUNK, catalogue.catalogs))


def _offers_in(catalogue: Catalogue, chunk: int) -> int:
    return sum(len(catalogue.offers(catalog)) for catalog in _catalogs_in(catalogue, chunk))


def make_chunk(shop: SyntheticShop, staging: Staging, chunk: int) -> int:
    """Draws and writes one range of catalogs, grouped by split. Returns the number of its offers."""
    catalogue = shop.catalogue
    rows: dict[str, list[dict[str, Any]]] = {
        table: [] for table in ("products", "images", "truth", "topics", "interactions")
    }
    offers: list[Offer] = []
    with ExitStack() as files:
        shards: dict[str, Shard] = {}
        catalogs = _catalogs_in(catalogue, chunk)
        for split in ("train", "val", "test"):
            for catalog in (i for i in catalogs if catalogue.split(i) == split):
                if split not in shards:
                    shards[split] = files.enter_context(staging.shard(_shard(split, chunk)))
                for offer in _offers(shop, catalogue, catalog, shards[split], _shard(split, chunk), rows):
                    offers.append(offer)
    rng = stream(shop.seed, CHUNK, chunk)
    topics = plant_topics(offers, chunk, rng)
    rows["topics"] = [topic.row(offers) for topic in topics]
    rows["interactions"] = list(log(offers, topics, shop.impressions_per_product, rng))
    staging.write_chunk(_name(chunk), rows, extra={"truth": TRUTH})
    return len(offers)


def _shard(split: str, chunk: int) -> str:
    return f"{split}-{_name(chunk)}.tar"


def _offers(
    shop: SyntheticShop,
    catalogue: Catalogue,
    catalog: int,
    shard: Shard,
    shard_name: str,
    rows: dict[str, list[dict[str, Any]]],
) -> Iterator[Offer]:
    design = catalogue.design(catalog)
    cut = paint(design, 2 * shop.image_size)
    numbers = catalogue.offers(catalog)
    sellers = stream(shop.seed, OFFER, numbers.start).permutation(shop.sellers)[: len(numbers)].tolist()
    original = (numbers.start, sellers[0])
    for number, own in zip(numbers, sellers, strict=True):
        if number == numbers.start or _stream_of(shop, number, 2).random() >= shop.duplicates:
            original = (number, own)
        drawn, own = original
        rng = _stream_of(shop, drawn, 1)
        by_photo, by_title = styled(shop.seed, own, shop.sellers, shop.seller_style, rng)
        worth = appeal(design, by_photo, rng, shop.review_noise)
        flaw = str(rng.choice(FLAWS)) if rng.random() < shop.flaws else None
        listed, catalog_id = _listed_catalog(shop, catalogue, catalog, rng)
        attributes = titles.attributes(design)
        if _stream_of(shop, number, 4).random() < shop.missing_model_code:
            del attributes["model code"]
        title = titles.seller_title(design, by_title, rng)
        if flaw == "personal_data":
            title = with_personal_data(title, rng)
        product = Product(
            id=opaque_id("P", number, shop.seed),
            catalog_id=catalog_id,
            title=title,
            description=titles.description(design),
            texts=titles.clean_titles(design),
            category_path=design.leaf.path,
            category_id=category_id(design),
            attributes=attributes,
            price=worth.price,
            currency="KRW",
            seller=seller(shop.seed, own).name,
            review_count=worth.review_count,
            stock=_stock(_stream_of(shop, number, 3)),
            split=design.split,
        )
        viewpoints = []
        for place in range(shop.photos_per_product):
            taken = view(by_photo.photo, design.leaf.upright, place == 0, rng)
            viewpoints.append(taken.viewpoint)
            photo = photograph(cut, by_photo.photo, taken, design.leaf.upright, shop.image_size)
            if flaw in PHOTO_FLAWS:
                photo = spoil_photo(photo, flaw, rng)
            file = io.BytesIO()
            photo.save(file, "JPEG", quality=by_photo.photo.jpeg_quality)
            data = file.getvalue()
            image_id = f"{product.id}-{place}"
            offset = shard.add(image_id, data, "jpg", product.to_json())
            rows["images"].append(
                image_row(product, image_id, "main" if place == 0 else "alt", shard_name, offset, data, photo.size)
            )
        rows["products"].append(product_row(product))
        rows["truth"].append(
            {
                "product_id": product.id,
                "true_catalog_id": opaque_id("C", catalog, shop.seed),
                "catalog_number": catalog,
                "listed_catalog": listed,
                "attractiveness": worth.attractiveness,
                "click_probability": click_probability(worth.attractiveness),
                "photo_style": by_photo.name,
                "title_style": by_title.name,
                "backdrop": by_photo.photo.backdrop.kind,
                "viewpoints": viewpoints,
                "looks": list(design.looks),
                "seasons": list(design.seasons),
                "flaws": [flaw] if flaw else [],
                "relist_of": None if drawn == number else opaque_id("P", drawn, shop.seed),
            }
        )
        yield Offer(product.id, design, worth.attractiveness, worth.review_count)


def _stream_of(shop: SyntheticShop, number: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([shop.seed, OFFER, number, purpose])))


def _stock(rng: np.random.Generator) -> int | None:
    kind = rng.random()
    if kind < SOLD_OUT:
        return 0
    return None if kind < SOLD_OUT + UNKNOWN_STOCK else int(rng.geometric(1 / MEAN_STOCK))


def _listed_catalog(
    shop: SyntheticShop, catalogue: Catalogue, catalog: int, rng: np.random.Generator
) -> tuple[str, str | None]:
    """The catalog id that the shop lists for the offer, and whether it is `true`, `wrong` or `missing`."""
    u = float(rng.random())
    if u < shop.catalog_noise:
        other = catalogue.lookalike(catalog, rng)
        if other is not None:
            return "wrong", opaque_id("C", other, shop.seed)
    elif u < shop.catalog_noise + shop.missing_catalog:
        return "missing", None
    return "true", opaque_id("C", catalog, shop.seed)
