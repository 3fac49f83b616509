"""`shoplens dataset`: create datasets, import them, and look into them."""

from __future__ import annotations

import csv
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from shoplens.cli.options import DatasetArgument, OutArgument
from shoplens.cli.terminal import console
from shoplens.errors import ShoplensError

if TYPE_CHECKING:
    from shoplens.datasets.format import Dataset

EXAMPLES = 3
"""Rows of one reason that `rejects` shows"""

app = typer.Typer(no_args_is_help=True, help="Creates datasets, imports them, and shows what they hold.")


class SourceKind(str, Enum):
    """Sources that can be imported: the keys of `shoplens.datasets.importing.SOURCES`, which is slow to import.

    A test compares the two.
    """

    grocery = "grocery"
    fashion = "fashion"
    fashion_lowres = "fashion_lowres"
    luma = "luma"
    clothing = "clothing"
    jsonl = "jsonl"
    parquet = "parquet"
    csv = "csv"
    xml = "xml"
    webdataset = "webdataset"


@app.command()
def synthesize(
    out: OutArgument,
    products: Annotated[int, typer.Option(min=1, help="Number of offers, each a row in products.parquet.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same dataset, byte for byte.")] = 7,
    sellers: Annotated[
        int, typer.Option(min=1, help="Number of sellers. Each has its own style of photos and titles.")
    ] = 24,
    offers_per_catalog: Annotated[int, typer.Option(min=1, help="Mean number of offers of one product.")] = 4,
    seller_style: Annotated[
        float, typer.Option(min=0, max=1, help="Probability that a photo or title shows its seller's style.")
    ] = 1.0,
    catalog_noise: Annotated[float, typer.Option(min=0, max=1, help="Share of offers with a wrong catalog id.")] = 0.02,
    missing_catalog: Annotated[float, typer.Option(min=0, max=1, help="Share of offers without a catalog id.")] = 0.02,
    missing_model_code: Annotated[
        float, typer.Option(min=0, max=1, help="Share of offers that do not state the model code.")
    ] = 0.0,
    duplicates: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of offers that repeat another offer's photo and title.")
    ] = 0.0,
    flaws: Annotated[
        float, typer.Option(min=0, max=1, help="Share of offers with a flaw in photo or title, for curation to find.")
    ] = 0.0,
    review_noise: Annotated[
        float,
        typer.Option(
            min=0, max=3, help="Noise of review counts around attractiveness: standard deviation on a log scale."
        ),
    ] = 0.5,
    image_size: Annotated[int, typer.Option(min=48, max=1024, help="Side of a photo, in pixels.")] = 128,
    photos_per_product: Annotated[int, typer.Option(min=1, max=8, help="Photos of each offer.")] = 1,
    impressions_per_product: Annotated[
        float, typer.Option(min=0, help="Mean number of impressions of an offer in the click log.")
    ] = 8.0,
    val: Annotated[float, typer.Option(min=0, max=1, help="Share of catalogs in the validation split.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of catalogs in the test split.")] = 0.1,
    name: Annotated[str, typer.Option(help="Name of the dataset.")] = "synthetic",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: one a CPU.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Creates a synthetic shop, without any download: products, sellers' offers, photos, titles, prices and clicks.

    OUT/truth.parquet holds what a real shop would not know: true catalogs, attractiveness and flaws.

    Example:

        shoplens dataset synthesize data/demo --products 2000 --seed 7
    """
    from shoplens.config import validate
    from shoplens.datasets.importing import summary
    from shoplens.synthetic import SyntheticShop
    from shoplens.synthetic import synthesize as make

    options = {
        "products": products,
        "seed": seed,
        "sellers": sellers,
        "offers_per_catalog": offers_per_catalog,
        "seller_style": seller_style,
        "catalog_noise": catalog_noise,
        "missing_catalog": missing_catalog,
        "missing_model_code": missing_model_code,
        "duplicates": duplicates,
        "flaws": flaws,
        "review_noise": review_noise,
        "image_size": image_size,
        "photos_per_product": photos_per_product,
        "impressions_per_product": impressions_per_product,
        "val": val,
        "test": test,
    }
    shop = validate(SyntheticShop, options, "the synthetic shop")
    dataset = make(out, shop, name=name, workers=workers, overwrite=overwrite)
    console.print(Text(summary(dataset)))


@app.command()
def raw(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Folder to create.")],
    records: Annotated[int, typer.Option(min=1, help="Number of documents, each with a title and photos.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same files, byte for byte.")] = 7,
    image_size: Annotated[int, typer.Option(min=200, max=1024, help="Side of most photos, in pixels.")] = 240,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: one a CPU.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Creates raw records as a search company has them before curation, with planted flaws of every kind.

    OUT holds photos in tars, photos.parquet, documents.parquet and clicks.parquet. The tables truth_photos.parquet,
    truth_texts.parquet and truth_pairs.parquet name each flaw, so that a curation can be judged.

    Example:

        shoplens dataset raw data/raw --records 20000 --seed 7
    """
    from shoplens.config import validate
    from shoplens.synthetic.raw_records import RawRecords, synthesize_raw

    options = {"records": records, "seed": seed, "image_size": image_size}
    settings = validate(RawRecords, options, "the settings of raw records")
    made = synthesize_raw(out, settings, workers=workers, overwrite=overwrite)
    console.print(
        Text(
            f"{out}: {made.documents:,} documents with {made.photos:,} photos and {made.clicks:,} rows of clicks, "
            f"{made.bytes / 1e6:,.0f} MB"
        )
    )
    curate = "ray job submit --working-dir . -- python -m workloads.curate workloads/configs/curation.yaml"
    console.print(Text(f"next: {curate} raw={out} out={out}-curated", style="dim"))


@app.command()
def outfits(
    out: OutArgument,
    outfits: Annotated[
        int, typer.Option(min=1, help="Number of photos of a figure that wears several products.")
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same dataset, byte for byte.")] = 7,
    sellers: Annotated[
        int, typer.Option(min=1, help="Number of sellers. Each has its own style of photos and titles.")
    ] = 24,
    image_size: Annotated[int, typer.Option(min=96, max=1024, help="Side of a photo, in pixels.")] = 224,
    dresses: Annotated[
        float, typer.Option(min=0, max=1, help="Share of outfits with a dress, not top and bottom.")
    ] = 0.25,
    skirts: Annotated[float, typer.Option(min=0, max=1, help="Share of bottoms that are skirts, not trousers.")] = 0.5,
    bags: Annotated[float, typer.Option(min=0, max=1, help="Share of outfits with a bag.")] = 0.6,
    patterned: Annotated[float, typer.Option(min=0, max=1, help="Share of garments with a pattern.")] = 0.6,
    rare: Annotated[float, typer.Option(min=0, max=0.2, help="Share of each rare value of an attribute.")] = 0.02,
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            help="Value that only the test split has. Repeat the option for more. "
            "Default: leaf print, square neck, tiered, square toe.",
            show_default=False,
        ),
    ] = None,
    language: Annotated[str, typer.Option(help="Language of attributes: en or ko.")] = "en",
    val: Annotated[float, typer.Option(min=0, max=1, help="Share of outfits in the validation split.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of outfits in the test split.")] = 0.1,
    name: Annotated[str, typer.Option(help="Name of the dataset.")] = "outfits",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: one a CPU.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Creates photos of outfits: one figure with top, skirt or trousers, shoes and bag, each a product of its own.

    OUT/garments.parquet holds the exact mask of every product in every photo, and OUT/attribute_words.parquet the
    attributes in English and Korean. So a search by photo and category word can be judged.

    Example:

        shoplens dataset outfits data/outfits --outfits 2000 --seed 7
    """
    from shoplens.config import validate
    from shoplens.datasets.importing import summary
    from shoplens.synthetic.outfits import Outfits, synthesize_outfits

    options = {
        "outfits": outfits,
        "seed": seed,
        "sellers": sellers,
        "image_size": image_size,
        "dresses": dresses,
        "skirts": skirts,
        "bags": bags,
        "patterned": patterned,
        "rare": rare,
        "language": language,
        "val": val,
        "test": test,
        **({} if held_out is None else {"held_out": tuple(held_out)}),
    }
    settings = validate(Outfits, options, "the settings of outfits")
    dataset = synthesize_outfits(out, settings, name=name, workers=workers, overwrite=overwrite)
    console.print(Text(summary(dataset)))


@app.command("import")
def import_(
    kind: Annotated[SourceKind, typer.Argument(metavar="KIND", help="Kind of source; see the list above.")],
    src: Annotated[str, typer.Argument(metavar="SRC", help="Folder or table to import.")],
    out: OutArgument,
    name: Annotated[
        str | None, typer.Option(help="Name of the dataset. Default: the source's name.", show_default=False)
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            help="Folder that relative photo paths start at. Default: the table's folder.", show_default=False
        ),
    ] = None,
    currency: Annotated[
        str | None,
        typer.Option(help="Currency of prices that name none, such as KRW. For tables.", show_default=False),
    ] = None,
    topics: Annotated[
        str | None,
        typer.Option(
            help="Table of shopping exhibitions: id, name, desc, date, cat1-4, kwds, product_ids.", show_default=False
        ),
    ] = None,
    interactions: Annotated[
        str | None,
        typer.Option(
            help="Event log: time, user_id, product_id, kind, surface, topic_id, position, propensity.",
            show_default=False,
        ),
    ] = None,
    lowres: Annotated[
        bool, typer.Option("--lowres", help="For `fashion`: also import the low-resolution photos beside SRC.")
    ] = False,
    photos_per_shard: Annotated[int, typer.Option(min=1, help="Photos in one WebDataset shard.")] = 1000,
    min_side: Annotated[int, typer.Option(min=1, help="Reject photos whose shorter side is less, in pixels.")] = 8,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Fetch photos from this host only. Repeat the option for more hosts.", show_default=False),
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Fetch photos from private network addresses too.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Imports a shop's products and photos as a dataset.

    KIND is `jsonl`, `parquet`, `csv` or `xml` for a table of your own, `webdataset` for shards of photos with captions
    or JSON, or a public data set: `grocery`, `fashion`, `fashion_lowres`, `luma`, `clothing`.

    A table has one row per product. It needs `id`, `title`, and `image` or `images` (paths relative to the table, or
    URLs). It may have `catalog_id`, `description`, `category_path`, `category_id`, `attributes`, `price`, `currency`,
    `seller`, `review_count`, `stock` (pieces) and `split`. Google Merchant feeds and exports of Shopify and WooCommerce
    are read under their own names. If no row names a split, parts for `val` and `test` are drawn.

    A bad optional field is left empty and noted. `shoplens dataset rejects OUT` shows notes, rejected products and
    rejected photos, each with its reason. To resume an interrupted import, run the same command again.

    Example:

        shoplens dataset import jsonl shop/products.jsonl data/shop
    """
    from shoplens.datasets.importing import PhotoRules, import_dataset, summary

    rules = PhotoRules(
        min_side=min_side, allow_hosts=tuple(allow_host) if allow_host else None, allow_private=allow_private
    )
    dataset = import_dataset(
        kind.value,
        src,
        out,
        name=name,
        lowres=lowres,
        images=images,
        currency=currency,
        topics=topics,
        interactions=interactions,
        photos_per_shard=photos_per_shard,
        rules=rules,
        overwrite=overwrite,
    )
    console.print(Text(summary(dataset)))


@app.command()
def show(
    directory: DatasetArgument,
    titles: Annotated[int, typer.Option(min=0, help="Number of example titles.")] = 8,
) -> None:
    """Prints the dataset's counts, splits, reject reasons, category tree and some titles.

    Example:

        shoplens dataset show data/demo
    """
    from shoplens.datasets.format import Dataset
    from shoplens.datasets.rejects import NOTES

    dataset = Dataset(directory)
    manifest = dataset.manifest
    maker = manifest.provenance.get("made_by") or manifest.provenance.get("source", "an unknown hand")
    console.print(Text(f"{manifest.name}  {dataset.path}", style="bold"))
    console.print(Text(f"digest {manifest.digest[:12]}, made by {maker}"))
    counts = Table("", "rows", box=None, header_style="dim")
    counts.columns[1].justify = "right"
    for table, rows in manifest.counts.items():
        counts.add_row(table, f"{rows:,}")
    for split, photos in manifest.photos_by_split.items():
        counts.add_row(f"photos of {split}", f"{photos:,}")
    for reason, rejected in sorted(manifest.rejects_by_reason.items(), key=lambda item: -item[1]):
        what = "noted" if reason in NOTES else "kept out"
        counts.add_row(Text(f"{what}: {reason}", style="yellow"), f"{rejected:,}")
    console.print(counts)
    for sentence in manifest.provenance.get("read", []):
        console.print(Text(sentence, style="dim"))
    console.print(_category_tree(dataset))
    for title in _examples(dataset, titles):
        console.print(Text(f"  {title}"))
    console.print(Text(f"next: shoplens dataset contact-sheet {directory} sheet.png", style="dim"))


def _category_tree(dataset: Dataset, most: int = 60) -> Tree:
    root = Tree("categories")
    branches: dict[str | None, Tree] = {None: root}
    rows = dataset.table("categories", ["category_id", "parent_id", "name", "n_products"]).slice(0, most)
    for row in rows.to_pylist():
        label = Text.assemble(row["name"], (f"  {row['n_products']:,}", "dim"))
        branches[row["category_id"]] = branches[row["parent_id"]].add(label)
    if dataset.manifest.counts["categories"] > most:
        root.add(Text(f"... and {dataset.manifest.counts['categories'] - most:,} more", style="dim"))
    return root


def _examples(dataset: Dataset, number: int) -> list[str]:
    titles = dataset.table("products", ["title"])["title"]
    step = max(1, len(titles) // max(1, number))
    return [title.as_py() for title in titles[::step]][:number]


@app.command()
def rejects(
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="Folder (or URI) of a dataset, or the OUT.partial of an import.")
    ],
    reason: Annotated[
        str | None, typer.Option(help="Show this reason only, such as missing_file.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every row, not three of each reason.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every row as CSV.")] = False,
) -> None:
    """Shows what an import kept out, and what it noted: counts by reason, each with sentences and their places.

    Example:

        shoplens dataset rejects data/shop --reason field --all
    """
    from shoplens.datasets.rejects import by_reason, read_rejects

    rows = [row for row in read_rejects(directory) if reason in (None, row["reason"])]
    if as_csv:
        writer = csv.DictWriter(sys.stdout, ["source", "product_id", "image", "reason", "detail"])
        writer.writeheader()
        writer.writerows(rows)
        return
    for what, notes in (("kept out", False), ("noted", True)):
        for found, number in by_reason(rows, notes):
            console.print(Text(f"{what}: {found}  {number:,}", style="bold"))
            of_reason = [row for row in rows if row["reason"] == found]
            for row in of_reason if every else of_reason[:EXAMPLES]:
                place = [row["source"], row["product_id"], row["image"]]
                console.print(Text(f"  {', '.join(filter(None, place))}: {row['detail']}"))
            if not every and number > EXAMPLES:
                console.print(Text(f"  ... and {number - EXAMPLES:,} more: --reason {found} --all", style="dim"))
    if not rows:
        console.print("nothing was kept out")


@app.command()
def contact_sheet(
    directory: DatasetArgument,
    out: Annotated[Path, typer.Argument(metavar="PNG", help="Image file to write (.png, .jpg, .jpeg or .webp).")],
    columns: Annotated[int, typer.Option(min=1, max=40, help="Photos in a row.")] = 8,
    rows: Annotated[int, typer.Option(min=1, max=40, help="Rows of photos.")] = 6,
    side: Annotated[int, typer.Option(min=32, max=1024, help="Side of a photo, in pixels.")] = 160,
    seed: Annotated[int, typer.Option(min=0, help="Another seed shows other photos.")] = 0,
    split: Annotated[
        str | None, typer.Option(help="Show photos of this split only: train, val or test.", show_default=False)
    ] = None,
) -> None:
    """Writes one image with sample photos, spread evenly over the categories, each with its category and title.

    Example:

        shoplens dataset contact-sheet data/demo sheet.png --split test
    """
    from shoplens.datasets.contact_sheet import contact_sheet as draw
    from shoplens.datasets.format import Dataset

    sheet = draw(Dataset(directory), columns=columns, rows=rows, side=side, seed=seed, split=split)
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ShoplensError(f"{out} is not the name of a picture: end it with .png")
    if not out.parent.is_dir():
        raise ShoplensError(f"there is no folder {out.parent}")
    sheet.save(out)
    console.print(Text(f"{out}: {sheet.width}x{sheet.height} pixels"))
