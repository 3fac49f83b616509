"""The `shoplens` command: datasets, the platform on this machine, and the model registry.

Heavy libraries are imported inside the commands that need them, so that help is there at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from shoplens.cluster.loopback import start_own_ray_on_loopback
from shoplens.errors import ShoplensError

if TYPE_CHECKING:
    from shoplens.cluster.file import Cluster
    from shoplens.cluster.lifecycle import Report
    from shoplens.datasets.format import Dataset

app = typer.Typer(
    name="shoplens",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Trains, tracks and serves e-commerce vision-language models.

**From nothing to answers:**

1. `shoplens dataset synthesize data/demo` makes a shop

2. `shoplens up clusters/local.yaml` starts Ray, MLflow and the endpoints

3. `ray job submit --working-dir . -- python -m workloads.train workloads/configs/eclip.yaml
dataset=$PWD/data/demo` trains a model and registers it as a version

4. `shoplens promote eclip 1 --alias champion` puts it behind its gates, then to work

5. `shoplens status` shows where the endpoints are""",
)
dataset_app = typer.Typer(no_args_is_help=True, help="Makes datasets and looks into them.")
app.add_typer(dataset_app, name="dataset")

console = Console(soft_wrap=True)


class SourceKind(str, Enum):
    """What can be imported; `tests/test_cli.py` keeps it equal to `shoplens.datasets.importing.SOURCES`."""

    grocery = "grocery"
    fashion = "fashion"
    fashion_lowres = "fashion_lowres"
    luma = "luma"
    clothing = "clothing"
    jsonl = "jsonl"
    parquet = "parquet"
    csv = "csv"
    webdataset = "webdataset"


class ExportLayout(str, Enum):
    huggingface = "huggingface"


ClusterFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="[CLUSTERFILE]",
        help="A file like clusters/local.yaml. Left out: $SHOPLENS_CLUSTER, else clusters/local.yaml.",
        show_default=False,
    ),
]
AliasOption = Annotated[str, typer.Option(help="champion is what is served, challenger what may be next.")]
ClusterOption = Annotated[
    Path | None, typer.Option("--cluster", help="Cluster file whose registry is meant.", show_default=False)
]
OutArgument = Annotated[str, typer.Argument(metavar="OUT", help="Folder (or fsspec URI) to make.")]
DatasetArgument = Annotated[str, typer.Argument(metavar="DIR", help="Folder (or URI) of a dataset.")]


def main() -> None:
    """Entry point: a user's mistake is a sentence and exit code 2; SHOPLENS_DEBUG=1 shows where it arose."""
    start_own_ray_on_loopback()
    try:
        app()
    except ShoplensError as error:
        if os.environ.get("SHOPLENS_DEBUG"):
            raise
        cause = getattr(error, "cause", None)  # Ray's errors carry the one that was raised in a worker
        Console(stderr=True, soft_wrap=True).print(Text(f"error: {cause or error}", style="red"))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


# --- datasets ---------------------------------------------------------------------------------------------


@dataset_app.command()
def synthesize(
    out: OutArgument,
    products: Annotated[int, typer.Option(min=1, help="Offers, each a row in products.parquet.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same shop, byte for byte.")] = 7,
    sellers: Annotated[int, typer.Option(min=1, help="Each has a style of photos and titles.")] = 24,
    offers_per_catalog: Annotated[int, typer.Option(min=1, help="Mean offers of one product.")] = 4,
    seller_style: Annotated[
        float, typer.Option(min=0, max=1, help="How often photo and title show the seller's own hand.")
    ] = 1.0,
    catalog_noise: Annotated[
        float, typer.Option(min=0, max=1, help="Share of offers with the id of another catalog.")
    ] = 0.02,
    missing_catalog: Annotated[float, typer.Option(min=0, max=1, help="Share of offers without a catalog id.")] = 0.02,
    missing_model_code: Annotated[
        float, typer.Option(min=0, max=1, help="Share of offers that do not state the model code.")
    ] = 0.0,
    duplicates: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of offers that repeat another, photo and title.")
    ] = 0.0,
    flaws: Annotated[
        float, typer.Option(min=0, max=1, help="Share of offers with a raw flaw in photo or title.")
    ] = 0.0,
    review_noise: Annotated[
        float, typer.Option(min=0, max=3, help="How far log review counts stray from attractiveness.")
    ] = 0.5,
    image_size: Annotated[int, typer.Option(min=48, max=1024, help="Pixels along a side.")] = 128,
    photos_per_product: Annotated[int, typer.Option(min=1, max=8)] = 1,
    impressions_per_product: Annotated[float, typer.Option(min=0, help="Mean rows in the click log.")] = 8.0,
    val: Annotated[float, typer.Option(min=0, max=1, help="Share of catalogs held out for validation.")] = 0.1,
    test: Annotated[float, typer.Option(min=0, max=1, help="Share of catalogs held out for testing.")] = 0.1,
    name: Annotated[str, typer.Option(help="What the dataset is called.")] = "synthetic",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; as many as CPUs if not set.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Draws a shop that needs no download: products, offers by sellers, photos, titles, prices and clicks.

    What is true but a shop would not know (true catalogs, attractiveness, flaws) is in OUT/truth.parquet.

        shoplens dataset synthesize data/demo --products 2000 --seed 7
    """
    from shoplens.datasets.importing import summary
    from shoplens.synthetic import SyntheticShop
    from shoplens.synthetic import synthesize as make

    shop = SyntheticShop.of(
        products=products,
        seed=seed,
        sellers=sellers,
        offers_per_catalog=offers_per_catalog,
        seller_style=seller_style,
        catalog_noise=catalog_noise,
        missing_catalog=missing_catalog,
        missing_model_code=missing_model_code,
        duplicates=duplicates,
        flaws=flaws,
        review_noise=review_noise,
        image_size=image_size,
        photos_per_product=photos_per_product,
        impressions_per_product=impressions_per_product,
        val=val,
        test=test,
    )
    dataset = make(out, shop, name=name, workers=workers, overwrite=overwrite)
    console.print(Text(summary(dataset)))


@dataset_app.command("import")
def import_(
    kind: Annotated[SourceKind, typer.Argument(help="What SRC is.")],
    src: Annotated[str, typer.Argument(metavar="SRC", help="Folder or table of the source.")],
    out: OutArgument,
    name: Annotated[str | None, typer.Option(help="What the dataset is called; the source's name if not set.")] = None,
    images: Annotated[
        str | None, typer.Option(help="Folder that a table's photo paths start at, if not the table's own.")
    ] = None,
    topics: Annotated[
        str | None, typer.Option(help="Table of exhibitions: id, name, desc, date, cat1-4, kwds, product_ids.")
    ] = None,
    interactions: Annotated[
        str | None,
        typer.Option(help="Log: time, user_id, product_id, kind, surface, topic_id, position, propensity."),
    ] = None,
    lowres: Annotated[
        bool, typer.Option("--lowres", help="With fashion: also the low-resolution photos beside SRC.")
    ] = False,
    photos_per_shard: Annotated[int, typer.Option(min=1)] = 1000,
    min_side: Annotated[int, typer.Option(min=1, help="Photos with a shorter side than this are kept out.")] = 8,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Take photos by URL from this host only; may be repeated.")
    ] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Take photos by URL from private addresses too.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Brings a catalogue into the one on-disk format.

    A `jsonl`, `parquet` or `csv` table has a row a product: `id`, `title` and `image` or `images` (paths
    relative to the table, or URLs), and if known `catalog_id`, `description`, `category_path`, `category_id`,
    `attributes`, `price`, `currency`, `seller`, `review_count`, `stock` (pieces), `split`.

    What cannot be used is kept out and listed, with its reason, in OUT/rejects.parquet. An import that was
    interrupted goes on where it stopped when the same command is typed again.

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
        topics=topics,
        interactions=interactions,
        photos_per_shard=photos_per_shard,
        rules=rules,
        overwrite=overwrite,
    )
    console.print(Text(summary(dataset)))


@dataset_app.command()
def show(directory: DatasetArgument, titles: Annotated[int, typer.Option(min=0, help="Example titles.")] = 8) -> None:
    """Counts, splits, what was kept out and why, the category tree, and a few titles."""
    from shoplens.datasets.format import Dataset

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
        counts.add_row(Text(f"kept out: {reason}", style="yellow"), f"{rejected:,}")
    console.print(counts)
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


@dataset_app.command()
def contact_sheet(
    directory: DatasetArgument,
    out: Annotated[Path, typer.Argument(metavar="PNG", help="Picture to write.")],
    columns: Annotated[int, typer.Option(min=1, max=40)] = 8,
    rows: Annotated[int, typer.Option(min=1, max=40)] = 6,
    side: Annotated[int, typer.Option(min=32, max=1024, help="Pixels a photo.")] = 160,
    seed: Annotated[int, typer.Option(min=0, help="Another seed shows other photos.")] = 0,
    split: Annotated[str | None, typer.Option(help="Photos of this split only.")] = None,
) -> None:
    """Draws a page of photos, spread over the categories, with their categories and titles."""
    from shoplens.datasets.contact_sheet import contact_sheet as draw
    from shoplens.datasets.format import Dataset

    sheet = draw(Dataset(directory), columns=columns, rows=rows, side=side, seed=seed, split=split)
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ShoplensError(f"{out} is not the name of a picture: end it with .png")
    if not out.parent.is_dir():
        raise ShoplensError(f"there is no folder {out.parent}")
    sheet.save(out)
    console.print(Text(f"{out}: {sheet.width}x{sheet.height} pixels"))


# --- the platform -----------------------------------------------------------------------------------------


@app.command()
def up(
    cluster_file: ClusterFile = None,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for the applications.")] = 900,
) -> None:
    """Starts Ray, MLflow and the applications of a cluster file, and waits until they are healthy.

    On a running cluster it deploys what changed: the `serve:` section, and the applications' code.
    """
    from shoplens.cluster import lifecycle
    from shoplens.cluster.file import current

    cluster = current(cluster_file)
    with _progress() as report:
        lifecycle.up(cluster, report, wait)
    _print_status(cluster)


@app.command()
def status(cluster_file: ClusterFile = None) -> None:
    """What runs, where it answers, which model version is the champion, and what to type next.

    Exit code 1 if something is not up.
    """
    from shoplens.cluster.file import current

    if not _print_status(current(cluster_file)):
        raise typer.Exit(1)


@app.command()
def down(cluster_file: ClusterFile = None) -> None:
    """Stops what `shoplens up` started, and nothing else. Datasets, runs and models stay."""
    from shoplens.cluster import lifecycle
    from shoplens.cluster.file import current

    cluster = current(cluster_file)
    with _progress() as report:
        stopped = lifecycle.down(cluster, report)
    console.print(Text(f"stopped; logs stay in {lifecycle.log_dir(cluster)}" if stopped else "nothing is running"))


@app.command()
def manifests(
    cluster_file: Annotated[Path, typer.Argument(metavar="CLUSTERFILE", help="A file like clusters/kubernetes.yaml.")],
) -> None:
    """Prints the KubeRay manifest of a cluster file, for `kubectl apply -f -`."""
    from shoplens.cluster.file import current
    from shoplens.cluster.manifests import manifests as render

    print(render(current(cluster_file)), end="")


@contextmanager
def _progress() -> Iterator[Report]:
    """A spinner with the latest line; where there is no terminal, every line that is new."""
    with console.status("") as spinner:
        before = ""

        def report(line: str) -> None:
            nonlocal before
            spinner.update(Text(line))
            if line != before and not console.is_terminal:
                console.print(Text(line))
            before = line

        yield report


def _print_status(cluster: Cluster) -> bool:
    """Prints the table; True if everything is up."""
    from shoplens.cluster import lifecycle

    parts = lifecycle.status(cluster)
    colours = {"up": "green", "elsewhere": "green", "starting": "yellow", "down": "dim", "failed": "red"}
    table = Table("", "state", "address", "", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for part in parts:
        table.add_row(part.name, Text(part.health, style=colours[part.health]), part.address, Text(part.message))
    console.print(Text(f"{cluster.name}  {cluster.file}", style="bold"))
    console.print(table)
    running = {part.name: part.health in ("up", "elsewhere") for part in parts}
    champions = _champions(cluster) if running["MLflow"] else {}
    for name, version in champions.items():
        console.print(Text(f"champion: {name}/{version}"))
    console.print(Text(f"storage: {cluster.storage_path}   logs: {lifecycle.log_dir(cluster)}", style="dim"))
    console.print(Text(f"next: {_next(cluster, running, champions)}"))
    return all(running.values())


def _champions(cluster: Cluster) -> dict[str, int]:
    from shoplens.registry.runs import client

    models = client(cluster.mlflow_uri).search_registered_models()
    return {model.name: int(model.aliases["champion"]) for model in models if "champion" in model.aliases}


def _next(cluster: Cluster, running: dict[str, bool], champions: dict[str, int]) -> str:
    """The command that a newcomer needs now."""
    if not running["Ray"] or not running["MLflow"]:
        return f"shoplens up {_short(cluster.file)}"
    if not champions:
        train = "python -m workloads.train workloads/configs/eclip.yaml dataset=DIR"
        return f"{_submit(cluster)} -- {train}"
    return f"open {cluster.endpoint}/" if all(running.values()) else f"shoplens up {_short(cluster.file)}"


def _submit(cluster: Cluster) -> str:
    """`ray job submit` for this cluster; the shortest for the one of clusters/local.yaml."""
    command = "ray job submit --working-dir ."
    if cluster.dashboard != "http://127.0.0.1:8265":
        command = f"RAY_API_SERVER_ADDRESS={cluster.dashboard} {command}"
    if runtime_env := cluster.job_runtime_env:
        command += f" --runtime-env-json {shlex.quote(json.dumps(runtime_env))}"
    return command


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


# --- the registry -----------------------------------------------------------------------------------------


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="Registered model, such as eclip.")],
    version: Annotated[int, typer.Argument(min=1)],
    alias: AliasOption = "champion",
    reason: Annotated[str, typer.Option(help="Why; kept with the version.")] = "",
    dataset: Annotated[
        str | None,
        typer.Option(help="Dataset to judge on; the one it was trained on if not set.", show_default=False),
    ] = None,
    gates: Annotated[
        str | None,
        typer.Option(
            help="YAML with a `promotion:` section; the training configuration's if not set.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Past failing gates; this leaves a trace.")] = False,
    cluster: ClusterOption = None,
) -> None:
    """Points an alias at a version, if it passes its gates against the version that holds the alias now.

    Both are judged on the same data. Who, when, why and every verdict are kept with the version.
    Exit code 2 if a gate refuses it, also with --dry-run.
    """
    from shoplens.cluster.file import attach

    attach(cluster)
    from shoplens import judging
    from shoplens.registry.promotion import gates_of
    from shoplens.registry.promotion import promote as decide
    from shoplens.registry.versions import resolve

    candidate = resolve(f"{name}/{version}")
    with console.status(Text(f"judging {candidate}")):
        decision = decide(
            name,
            version,
            gates=gates_of(candidate, gates),
            evaluate=judging.evaluate,
            alias=alias,
            reason=reason,
            dataset=dataset,
            dry_run=dry_run,
            force=force,
        )
    console.print(Text(str(decision)))
    if decision.gate == "failed":
        raise typer.Exit(2)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="Registered model, such as eclip.")],
    alias: AliasOption = "champion",
    reason: Annotated[str, typer.Option(help="Why; kept in the history.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")] = False,
    cluster: ClusterOption = None,
) -> None:
    """Points an alias back at the version that held it before; again, at the one before that."""
    from shoplens.cluster.file import attach

    attach(cluster)
    from shoplens.registry.promotion import rollback as decide

    console.print(Text(str(decide(name, alias=alias, reason=reason, dry_run=dry_run))))


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Only this model, with every version.", show_default=False)] = None,
    cluster: ClusterOption = None,
) -> None:
    """The registered models: versions, aliases, gate, and figures of their evaluations."""
    from shoplens.cluster.file import attach

    attach(cluster)
    from shoplens.registry.runs import client

    tracking = client()
    registered = {model.name: model for model in tracking.search_registered_models()}
    if name is not None and name not in registered:
        there = ", ".join(registered) or "none yet"
        raise ShoplensError(f"there is no registered model {name!r} (there is: {there})")
    if not registered:
        console.print("no model is registered yet; train one with workloads.train")
        return
    table = Table(
        "version",
        "aliases",
        "gate",
        "trained on",
        "figures",
        box=None,
        header_style="dim",
        padding=(0, 2, 0, 0),
    )
    for model in registered.values() if name is None else [registered[name]]:
        versions = sorted(tracking.search_model_versions(f"name='{model.name}'"), key=lambda v: -int(v.version))
        for version in versions if name else versions[:5]:
            held = [alias for alias, number in model.aliases.items() if int(number) == int(version.version)]
            run = tracking.get_run(version.run_id) if version.run_id else None
            table.add_row(
                f"{model.name}/{version.version}",
                Text(", ".join(held), style="bold green" if "champion" in held else ""),
                version.tags.get("gate", ""),
                run.data.tags.get("dataset_name", "") if run else "",
                _figures(run.data.metrics if run else {}),
            )
    console.print(table)


@app.command()
def export(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Folder of a package, or a registered model such as eclip@champion."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    layout: Annotated[ExportLayout, typer.Option("--format", help="Layout to write.")] = ExportLayout.huggingface,
    cluster: ClusterOption = None,
) -> None:
    """Writes a trained model for use without shoplens.

    `huggingface`: weights, tokenizer and image processor as transformers' CLIPModel or SiglipModel reads them.
    Only a model whose towers are those of CLIP or SigLIP can be written so: one that started from such a
    checkpoint (docs/fine_tuning.md).

        shoplens export eclip@champion exported/eclip
    """
    folder = Path(model)
    if not folder.is_dir():
        from shoplens.cluster.file import attach

        attach(cluster)
        from shoplens.registry.versions import cache_dir, download, resolve

        folder = download(resolve(model), cache_dir())
    from shoplens.packages.embedder import Embedder
    from shoplens.packages.pretrained import huggingface

    embedder = Embedder.load(folder)
    huggingface.export(embedder, out)
    console.print(Text(f"{out}: {embedder.name} as {layout.value} reads it"))
    if embedder.preprocessing.centre == "round":
        console.print("its photos are cut out up to a pixel beside where this model cuts them (torchvision's rounding)")


def _figures(metrics: dict[str, float]) -> str:
    """`test/text_to_image/recall_at_10` and the like, those of the test split before others."""
    wanted = ("text_to_image/recall_at_10", "image_to_text/recall_at_10", "matching/image/recall_at_1")
    shown = []
    for metric in wanted:
        for split in ("test", "val"):
            if f"{split}/{metric}" in metrics:
                shown.append(f"{metric.replace('_at_', '@')} {metrics[f'{split}/{metric}']:.3f} ({split})")
                break
    return "\n".join(shown)
