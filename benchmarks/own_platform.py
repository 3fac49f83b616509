"""A platform of its own for a benchmark, on free ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from shoplens.cluster.file import Cluster

FILE = Path(__file__).parents[1] / "clusters/local.yaml"


@contextmanager
def own_platform(folder: Path, name: str, **args: Any) -> Iterator[Cluster]:
    """That of `clusters/local.yaml`, its storage in `folder`; `args` are further ones of the Serve application."""
    from shoplens.cluster import lifecycle
    from shoplens.cluster.file import Cluster
    from shoplens.cluster.ports import free_port

    tree = yaml.safe_load(FILE.read_text())
    tree |= {"name": name, "storage": str(folder / "storage")}
    tree["ray"] |= {"dashboard_port": free_port(), "gcs_port": free_port()}
    tree["mlflow"]["port"] = free_port()
    tree["serve"]["http_options"]["port"] = free_port()
    tree["serve"]["applications"][0]["args"] |= args
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(tree))
    cluster = Cluster.load(file)
    try:
        lifecycle.up(cluster)
        yield cluster
    finally:
        lifecycle.down(cluster)
