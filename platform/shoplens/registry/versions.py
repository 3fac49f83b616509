"""Model versions in the MLflow registry: registered as pyfuncs, resolved by reference, downloaded into a cache.

Only `register` needs what a package is made of. It imports that (torch) itself, so that commands which read the registry
start at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from filelock import FileLock
from mlflow import MlflowClient, MlflowException
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion as RegisteredVersion

from shoplens.errors import ShoplensError
from shoplens.registry.runs import client

if TYPE_CHECKING:
    from shoplens.packages.model import PackagedModel

SUFFIXES = frozenset({".safetensors", ".json", ".md", ".txt", ".yaml", ".model", ".png", ".jpg"})
"""Suffixes of the files that a package may hold. None of them can carry code, as a pickle can."""
REQUIREMENTS = (
    "mlflow",
    "torch",
    "transformers",
    "timm",
    "tokenizers",
    "safetensors",
    "numpy",
    "pandas",
    "Pillow",
)
_REFERENCE = re.compile(r"(?:models:/)?(?P<name>[^/@:\s]+)(?:@(?P<alias>[\w-]+)|/(?P<version>\d+))?")


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model. `str()` gives its name in answers, such as `eclip/3`."""

    name: str
    version: int
    run_id: str
    tags: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def uri(self) -> str:
        return f"models:/{self}"


def register(
    run_id: str,
    name: str,
    folder: str | Path,
    *,
    tags: Mapping[str, str] | None = None,
    tracking_uri: str | None = None,
) -> int:
    """Logs the package to the run, registers it as the next version of `name`, and points `candidate` at it.

    Raises ShoplensError if a file is missing, the weights are not safetensors, or a file has a suffix that is not in
    `SUFFIXES`.
    """
    from mlflow.models import Model

    from shoplens.registry.signature import columns, signature

    folder = Path(folder)
    checksums, kind = _checked(folder)
    tracking = client(tracking_uri)
    run = tracking.get_run(run_id)
    logged = tracking.create_logged_model(run.info.experiment_id, name=name, source_run_id=run_id)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            package = Path(scratch, "package")
            shutil.copytree(folder, package)
            model = Path(scratch, "model")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*input example was not provided.*")
                mlflow.pyfunc.save_model(
                    model,
                    python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                    artifacts={"package": str(package)},
                    signature=signature(kind.capabilities),
                    metadata={"input_columns": columns(kind.capabilities)},
                    pip_requirements=[f"{library}=={metadata.version(library)}" for library in REQUIREMENTS],
                    mlflow_model=Model(
                        artifact_path=logged.artifact_location,
                        run_id=run_id,
                        model_uuid=logged.model_id,
                        model_id=logged.model_id,
                    ),
                )
            tracking.log_model_artifacts(logged.model_id, str(model))
    except BaseException:
        tracking.finalize_logged_model(logged.model_id, "FAILED")
        raise
    tracking.finalize_logged_model(logged.model_id, "READY")
    tracking.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    _ensure_registered(tracking, name)
    created = tracking.create_model_version(
        name,
        f"models:/{logged.model_id}",
        run_id=run_id,
        model_id=logged.model_id,
        tags={
            **(tags or {}),
            "package": json.dumps(checksums),
            "package_digest": package_digest(checksums),
            "capabilities": json.dumps(_capabilities(folder, kind)),
            "version.shoplens": metadata.version("shoplens"),
        },
    )
    tracking.set_registered_model_alias(name, "candidate", created.version)
    return int(created.version)


def resolve(reference: str, *, tracking_uri: str | None = None) -> ModelVersion:
    """A reference -> the version: `eclip` (its champion), `eclip@alias` or `eclip/3`, each also after `models:/`.

    Raises ShoplensError if there is no such version (it lists those that exist), or if the version is not ready.
    """
    match = _REFERENCE.fullmatch(reference.strip())
    if match is None:
        raise ShoplensError(f"{reference!r} names no model: write eclip, eclip@champion or eclip/3")
    tracking = client(tracking_uri)
    name, alias = match["name"], match["alias"] or "champion"
    try:
        if match["version"]:
            found = tracking.get_model_version(name, match["version"])
        else:
            found = tracking.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ShoplensError(_what_there_is(tracking, name, match["version"], alias)) from None
    return as_version(found)


def as_version(found: RegisteredVersion) -> ModelVersion:
    """Raises ShoplensError if its registration failed or has not finished."""
    if found.status != "READY":
        raise ShoplensError(
            f"{found.name}/{found.version} is not ready ({found.status}"
            + (f": {found.status_message}" if found.status_message else "")
            + "): register the package again"
        )
    return ModelVersion(found.name, int(found.version), found.run_id or "", dict(found.tags), found.source or "")


def download(version: ModelVersion, cache_dir: str | Path, *, tracking_uri: str | None = None) -> Path:
    """The package's folder below `cache_dir`, fetched unless it is there and whole.

    Every file is checked against the SHA-256 recorded at registration, each time. Many processes may call
    at once: one fetches, the others wait; a folder appears only when complete.
    Raises ShoplensError if the registry's files are not those that were registered.
    """
    if "package" not in version.tags:
        raise ShoplensError(f"{version} holds no shoplens package: it was not registered by shoplens")
    expected: dict[str, str] = json.loads(version.tags["package"])
    digest = package_digest(expected)
    cache = Path(cache_dir)
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{version.name}-{digest[:16]}"
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            if checksums(folder) == expected:
                return folder
            shutil.rmtree(folder)
        uri = client(tracking_uri).tracking_uri
        for abandoned in cache.glob(f".{folder.name}-*"):  # by a process that was killed
            shutil.rmtree(abandoned)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{folder.name}-") as scratch:
            fetched = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{version.uri}/artifacts/package",
                dst_path=scratch,
                tracking_uri=uri,
                registry_uri=os.environ.get("MLFLOW_REGISTRY_URI", uri),
            )
            if checksums(Path(fetched)) != expected:
                raise ShoplensError(f"the files of {version} in the registry are not the ones that were registered")
            Path(fetched).rename(folder)
    return folder


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, by path relative to the folder, sorted."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sha256 = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                sha256.update(chunk)
        found[path.relative_to(folder).as_posix()] = sha256.hexdigest()
    return found


def package_digest(checksums: Mapping[str, str]) -> str:
    """Identity of a package: SHA-256 over its sorted checksums."""
    return hashlib.sha256(json.dumps(dict(checksums), sort_keys=True).encode()).hexdigest()


def _checked(folder: Path) -> tuple[dict[str, str], type[PackagedModel]]:
    from safetensors import SafetensorError, safe_open

    from shoplens.packages.model import FILES, class_of, read_config

    kind = class_of(read_config(folder), folder)
    missing = [name for name in (*FILES, *kind.files) if not (folder / name).is_file()]
    if missing:
        raise ShoplensError(f"{folder} is not a package: {', '.join(missing)} is missing")
    found = checksums(folder)
    for name in found:
        if Path(name).suffix not in SUFFIXES:
            raise ShoplensError(
                f"the package holds {name}, which may run code when loaded or is of no use: "
                f"a package takes {', '.join(sorted(SUFFIXES))} files only; save weights as safetensors"
            )
    try:
        with safe_open(folder / "model.safetensors", framework="numpy"):
            pass
    except SafetensorError as error:
        raise ShoplensError(f"{folder}/model.safetensors is not a safetensors file: {error}") from error
    return found, kind


def _capabilities(folder: Path, kind: type[PackagedModel]) -> list[str]:
    """Names: those of the class, and attributes if the package has heads for them."""
    from shoplens.evaluation.heads import extractor
    from shoplens.packages.capabilities import EXTRACT_ATTRIBUTES

    heads = [EXTRACT_ATTRIBUTES] if (folder / extractor.FOLDER).is_dir() else []
    return [capability.name for capability in (*kind.capabilities, *heads)]


def cache_dir() -> Path:
    """Where packages are kept after download: in SHOPLENS_STORAGE if that is a folder here."""
    storage = os.environ.get("SHOPLENS_STORAGE", "")
    return Path(storage if storage and "://" not in storage else ".shoplens", "cache", "packages")


def _ensure_registered(tracking: MlflowClient, name: str) -> None:
    try:
        tracking.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _what_there_is(tracking: MlflowClient, name: str, version: str | None, alias: str) -> str:
    try:
        model = tracking.get_registered_model(name)
    except MlflowException:
        known = sorted(model.name for model in tracking.search_registered_models(max_results=1000))
        return f"the registry knows no model {name!r}: " + (
            f"it knows {', '.join(known)}" if known else "it is empty; train one with `workloads.train`"
        )
    versions = sorted(int(found.version) for found in tracking.search_model_versions(f"name='{name}'"))
    listed = ", ".join(map(str, versions)) or "none"
    if version:
        return f"{name} has no version {version} (versions: {listed})"
    aliases = ", ".join(f"{alias} -> {at}" for alias, at in sorted(model.aliases.items())) or "none"
    return (
        f"no version of {name} is {alias!r} (aliases: {aliases}; versions: {listed}): "
        f"set it with `shoplens promote {name} VERSION --alias {alias}`"
    )
