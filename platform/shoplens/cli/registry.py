"""`shoplens promote`, `rollback` and `export`: what is served, and models for use elsewhere."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from shoplens.cli.options import AliasOption, ClusterOption, DryRunOption, ModelArgument
from shoplens.cli.terminal import console

if TYPE_CHECKING:
    from shoplens.cluster.file import Cluster
    from shoplens.evaluation.results import Evaluation
    from shoplens.registry.versions import ModelVersion


class ExportLayout(str, Enum):
    huggingface = "huggingface"


def promote(
    name: ModelArgument,
    version: Annotated[
        int, typer.Argument(metavar="VERSION", min=1, help="Version number. `shoplens models` lists them.")
    ],
    alias: AliasOption = "champion",
    reason: Annotated[str, typer.Option(help="Why you promote it. Kept with the version.")] = "",
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Dataset to evaluate on. Default: the version's training dataset.", show_default=False
        ),
    ] = None,
    gates: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="YAML file with a `promotion:` section. Default: the version's training configuration.",
            show_default=False,
        ),
    ] = None,
    dry_run: DryRunOption = False,
    force: Annotated[
        bool, typer.Option("--force", help="Promote even if a gate fails. The version keeps the tag `gate: forced`.")
    ] = False,
    cluster: ClusterOption = None,
) -> None:
    """Moves an alias to a version, if the version passes its gates.

    A gate is a bar for one metric: a lowest value, a highest value (for errors), or a largest drop below the version
    that holds the alias now. Both versions are evaluated on the same dataset and split. The version keeps who promoted
    it, when, why, and the verdict of every gate. The exit code is 2 if a gate fails, also with --dry-run.

    Example:

        shoplens promote eclip 3 --alias champion --reason "more photos" --dry-run
    """
    from shoplens.cluster.file import attach

    platform = attach(cluster)
    from shoplens.registry.promotion import gates_of
    from shoplens.registry.promotion import promote as decide
    from shoplens.registry.runs import client
    from shoplens.registry.versions import resolve

    candidate = resolve(f"{name}/{version}")
    if _needs_index(candidate, alias, platform):
        data = dataset or client().get_run(candidate.run_id).data.tags.get("dataset_path", "DIR")
        command = f"python -m workloads.build_index --model {candidate} dataset={data}"
        console.print(Text(f"{candidate} has no index, and search is on: it is served once you run {command}"))
    with console.status(Text(f"evaluating {candidate}")):
        decision = decide(
            name,
            version,
            gates=gates_of(candidate, gates),
            evaluate=_evaluate,
            alias=alias,
            reason=reason,
            dataset=dataset,
            dry_run=dry_run,
            force=force,
        )
    console.print(Text(str(decision)))
    if decision.gate == "failed":
        raise typer.Exit(2)


def _needs_index(version: ModelVersion, alias: str, cluster: Cluster) -> bool:
    """Whether an application of the cluster file would search with the version, and the version has no index.

    A version without a list of capabilities embeds photos.
    """
    capabilities = json.loads(version.tags.get("capabilities", '["embed_image"]'))
    if "index" in version.tags or not any(name.startswith("embed_") for name in capabilities):
        return False
    for application in cluster.serve_config["applications"]:
        args = application.get("args") or {}
        named = not args.get("models") or version.name in args["models"]
        if args.get("search", True) and args.get("alias", "champion") == alias and named:
            return True
    return False


def _evaluate(version: ModelVersion, dataset: str, split: str) -> Evaluation:
    """By the recipe of the version's package, on a Ray of this process alone."""
    from shoplens import recipes
    from shoplens.cluster.own_ray import own_ray
    from shoplens.datasets.format import Dataset
    from shoplens.registry.versions import cache_dir, download

    with own_ray():
        return recipes.evaluate(download(version, cache_dir()), Dataset(dataset), split, str(version))[0]


def rollback(
    name: ModelArgument,
    alias: AliasOption = "champion",
    reason: Annotated[str, typer.Option(help="Why you roll back. Kept in the history.")] = "",
    dry_run: DryRunOption = False,
    cluster: ClusterOption = None,
) -> None:
    """Moves an alias back to the version that held it before. Each further call goes one version further back.

    It checks no gate: the gates were checked when the earlier version was promoted.

    Example:

        shoplens rollback eclip --reason "wrong colours on the page"
    """
    from shoplens.cluster.file import attach

    attach(cluster)
    from shoplens.registry.promotion import rollback as decide

    console.print(Text(str(decide(name, alias=alias, reason=reason, dry_run=dry_run))))


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Registered model, such as eclip@champion or eclip/3, or the folder of a package."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to create.")],
    layout: Annotated[ExportLayout, typer.Option("--format", help="File layout to write.")] = ExportLayout.huggingface,
    cluster: ClusterOption = None,
) -> None:
    """Writes a trained model as files that other libraries load.

    `huggingface` writes the weights, tokenizer and image processor of transformers' CLIPModel or SiglipModel. It
    takes only models with the towers of CLIP or SigLIP, that is, models fine-tuned from such a checkpoint
    (docs/fine_tuning.md).

    Example:

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
