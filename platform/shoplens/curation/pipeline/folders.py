"""The folders of a curation: what was measured of which tables, and what which rules made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import PIL

from shoplens.curation.pipeline.config import CurationConfig
from shoplens.curation.pipeline.files import aside
from shoplens.curation.text import language
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError


def open_signals(config: CurationConfig) -> tuple[Path, Mapping[str, Any]]:
    """The folder of what was measured, and what it is of: settings, tables, versions, the day of the first run, a token.

    The token tells this folder from one that was removed and made anew.

    Raises ShoplensError if the folder holds the signals of other tables, settings or versions.
    """
    folder = Path(config.folder)
    mark = folder / "measured.json"
    about = {
        "settings": config.measured_with(),
        "tables": {path: _state(path) for path in (config.raw.photos, config.raw.documents, config.raw.clicks) if path},
        "versions": {"shoplens": version("shoplens"), "pillow": PIL.__version__, "language": language.model_name()},
    }
    about = json.loads(json.dumps(about))
    if mark.exists() and (folder / "tables.json").exists():
        before = json.loads(mark.read_text())
        if {name: before.get(name) for name in about} != about:
            changed = ", ".join(name for name in about if before.get(name) != about[name])
            raise ShoplensError(
                f"{folder} holds the signals of other {changed}: "
                "set signals= to another folder, or remove this one to measure again"
            )
        return folder, before
    about |= {"day": date.today().isoformat(), "token": uuid4().hex}
    with aside(mark) as file:
        file.write_text(json.dumps(about, indent=1))
    return folder, about


def cut_folder(config: CurationConfig, signals: Path, models: Mapping[str, str]) -> Path:
    """The folder of what these rules make of the signals. `models` are the names of those that measure."""
    rules = config.model_dump(mode="json", exclude={"name", "out", "signals", "raw", "fetching", "memory"})
    held_out = [Dataset(path).digest for path in config.held_out]
    content = json.dumps([rules, dict(models), held_out], sort_keys=True)
    return signals / "cuts" / hashlib.sha256(content.encode()).hexdigest()[:12]


def _state(path: str) -> list[str]:
    """A checksum of each file of the path, which may be a pattern. Raises ShoplensError if there is none."""
    fs, inner = fsspec.core.url_to_fs(path)
    files = sorted(fs.glob(inner)) if "*" in inner else [inner]
    try:
        if not files:
            raise FileNotFoundError(2, "no file matches")
        return [str(fs.checksum(file)) for file in files]
    except OSError as error:
        raise ShoplensError(f"the table {path} is missing ({error.strerror or error}): check the path") from error
