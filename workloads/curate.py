"""Makes clean shards and a dataset of raw photos, documents and clicks.

What is measured is kept in the folder `signals`, so the same command with other rules measures nothing again. A run
that was cut off goes on when it is started again. The same input and configuration give the same shards, whatever the
number of workers.

Example:

    ray job submit --working-dir . -- python -m workloads.curate workloads/configs/curation.yaml raw=DIR out=DIR
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from workloads.job import Settings, connect, lines, run

if TYPE_CHECKING:
    from shoplens.curation.photo.text_boxes import Detector
    from shoplens.curation.pipeline.config import CurationConfig
    from shoplens.curation.pipeline.curate import Part, Work
    from shoplens.curation.pipeline.learned import Models


def main(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="Configuration, such as workloads/configs/curation.yaml.")
    ],
    settings: Settings,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Parts that are done at a time. Default: one a CPU.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the dataset if it exists.")] = False,
) -> None:
    from shoplens.config import override, read_yaml, validate
    from shoplens.curation.pipeline.config import CurationConfig
    from shoplens.curation.pipeline.curate import curate
    from shoplens.errors import ShoplensError
    from shoplens.registry import runs
    from workloads.parts import in_parts

    if "=" in config:
        raise ShoplensError("name the configuration first: workloads/configs/curation.yaml")
    tree = override(read_yaml(config), settings)
    if lacking := [key for key in ("raw", "out") if not tree.get(key)]:
        raise ShoplensError(f"add {' and '.join(f'{key}=DIR' for key in lacking)}")
    chosen = _absolute(validate(CurationConfig, tree, config))
    packages = _packages(chosen)
    connect()

    def do(
        work: Work | None,
        parts: Sequence[Part],
        what: str,
        total: int,
        prepare: Callable[[], Work] | None = None,
    ) -> None:
        doing, _, unit = what.partition(" ")
        progress = lines(doing, unit, total) if what else _quietly
        in_parts(work, parts, progress, workers=workers, prepare=prepare)

    names = {name: title for name, (title, _) in packages.items()}
    run_id = runs.start_run("curation", chosen.name, chosen.model_dump(mode="json"), RawTables.of(chosen), names)
    try:
        curated = curate(chosen, names, partial(_load, chosen, packages), do, overwrite)
        for step in curated.steps:
            runs.client().log_metric(run_id, f"left/{step.title.replace(' ', '_')}", step.left)
        runs.client().log_text(run_id, curated.report, "report.html")
        runs.client().set_tag(run_id, "made_digest", curated.dataset.digest)
    except BaseException:
        runs.finish(run_id, "FAILED")
        print("what was measured is kept: the same command goes on", flush=True)
        raise
    runs.finish(run_id)
    print(curated, flush=True)


class RawTables(NamedTuple):
    """What a run records of the raw tables; `digest` changes when a table or a setting of the measurement does."""

    name: str
    digest: str
    path: str

    @classmethod
    def of(cls, config: CurationConfig) -> RawTables:
        from shoplens.curation.pipeline.folders import open_signals

        _, about = open_signals(config)
        content = json.dumps(about, sort_keys=True).encode()
        return cls(config.name, hashlib.sha256(content).hexdigest(), config.raw.photos)


def _quietly(done: int) -> None:
    pass


def _absolute(config: CurationConfig) -> CurationConfig:
    """Paths are resolved here, because nodes of the cluster have other working folders."""

    def absolute(path: str | None) -> str | None:
        return path if path is None or "://" in path else os.path.abspath(path)

    raw = config.raw.model_copy(update={name: absolute(path) for name, path in config.raw.model_dump().items()})
    held_out = tuple(map(absolute, config.held_out))
    paths = {"raw": raw, "out": absolute(config.out), "signals": absolute(config.signals), "held_out": held_out}
    return config.model_copy(update=paths)


def _packages(config: CurationConfig) -> dict[str, tuple[str, str]]:
    """Name with version, and folder, of each model that measures. A tool that comes with its weights has no folder."""
    from shoplens.curation.photo.adult import AdultScore
    from shoplens.registry.versions import cache_dir, download, resolve

    wanted = config.learned
    found: dict[str, tuple[str, str]] = {}
    for name, cut in (("watermark", wanted.watermark), ("score", wanted.score)):
        if cut is not None:
            version = resolve(cut.model)
            found[name] = (str(version), str(download(version, cache_dir()).absolute()))
    if wanted.boxes:
        found["boxes"] = (_detector(wanted.boxes.detector).name, "")
    if wanted.adult:
        found["adult"] = (AdultScore().name, "")
    if wanted.score:
        found["form"] = (f"masked={wanted.score.masked}, background={wanted.score.background}", "")
    return found


def _detector(name: str) -> Detector:
    from shoplens.curation.photo.text_boxes import Morphology, RapidOcr

    return RapidOcr() if name == "rapidocr" else Morphology()


def _load(config: CurationConfig, packages: Mapping[str, tuple[str, str]]) -> Models:
    from shoplens.curation.photo.adult import AdultScore
    from shoplens.curation.pipeline.learned import Models
    from shoplens.packages.photo_scoring import PairScorer, PhotoScorer

    wanted = config.learned
    return Models(
        watermark=PhotoScorer(packages["watermark"][1]) if wanted.watermark else None,
        boxes=_detector(wanted.boxes.detector) if wanted.boxes else None,
        adult=AdultScore().score if wanted.adult else None,
        scorer=PairScorer(packages["score"][1]) if wanted.score else None,
        masks=wanted.score is not None and wanted.score.masked,
    )


if __name__ == "__main__":
    run(main, __doc__)
