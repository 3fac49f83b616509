"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ClusterFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="CLUSTERFILE",
        help="Cluster file, such as clusters/local.yaml. Default: $SHOPLENS_CLUSTER, else clusters/local.yaml.",
        show_default=False,
    ),
]
ClusterOption = Annotated[
    Path | None,
    typer.Option(
        "--cluster",
        metavar="CLUSTERFILE",
        help="Cluster file that names the registry. Default: $SHOPLENS_CLUSTER, else clusters/local.yaml.",
        show_default=False,
    ),
]
AliasOption = Annotated[
    str, typer.Option(help="Alias to move. `champion` is served. `challenger` is compared with it in experiments.")
]
ModelArgument = Annotated[str, typer.Argument(metavar="NAME", help="Registered model, such as eclip.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would happen, and change nothing.")]
OutArgument = Annotated[str, typer.Argument(metavar="OUT", help="Folder (or fsspec URI) to create.")]
DatasetArgument = Annotated[str, typer.Argument(metavar="DIR", help="Folder (or URI) of a dataset.")]
