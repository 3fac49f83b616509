"""The steps of a curation in their order. Who does the parts of a step is up to the caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from shoplens.curation.pipeline import (
    choosing,
    cutting,
    duplicates,
    joining,
    learned,
    measuring,
    proposing,
    shards,
    tables,
)
from shoplens.curation.pipeline.config import CurationConfig
from shoplens.curation.pipeline.files import groups
from shoplens.curation.pipeline.finishing import Curated, finish, open_dataset
from shoplens.curation.pipeline.folders import cut_folder, open_signals
from shoplens.curation.pipeline.learned import Models
from shoplens.curation.text import noise_words
from shoplens.datasets.staging import Staging

Part = Mapping[str, Any]
Work = Callable[[Part], int]
"""Does a part unless it is done, and returns its number of rows."""


class Workers(Protocol):
    """Does the parts of a step, in any order and anywhere, and returns when all are done."""

    def __call__(
        self, work: Work | None, parts: Sequence[Part], what: str, total: int, prepare: Callable[[], Work] | None = None
    ) -> None:
        """
        work      does a part; None where `prepare` makes it in each worker, for models that are loaded once
        what      such as "measuring photos"
        total     rows of all parts
        """
        ...


def curate(
    config: CurationConfig,
    names: Mapping[str, str],
    models: Callable[[], Models],
    workers: Workers,
    overwrite: bool = False,
) -> Curated:
    """Makes the dataset `config.out`.

    names    of the models that measure, with their versions
    models   loads them

    Raises ShoplensError if a table is missing or lacks a column, if `out` exists and `overwrite` is not set, if `signals`
    holds what was measured of other tables, or if no record is left. What was measured stays.
    """
    signals, about = open_signals(config)
    cut = cut_folder(config, signals, names)
    staging = open_dataset(config, about, names, overwrite)
    counts = tables.number_tables(config, signals)

    def numbers(table: str) -> list[Part]:
        return [{"part": number} for number in range(groups(signals / f"{table}.parquet"))]

    workers(partial(_measure_photos, config, signals), numbers("photos"), "measuring photos", counts["photos"])
    for table in ("documents", "queries"):
        work = partial(_measure_texts, config, signals, table, date.fromisoformat(about["day"]))
        workers(work, numbers(table), f"measuring {_TEXTS[table]}", counts[table])
    duplicates.group_photos(signals, cut, config.held_out)
    workers(partial(_cut_photos, config, signals, cut), numbers("photos"), "cutting photos", counts["photos"])
    for table in ("documents", "queries"):
        work = partial(_cut_texts, config, signals, cut, table)
        workers(work, numbers(table), f"cutting {_TEXTS[table]}", counts[table])
    joining.join(config, signals, cut)

    folder = learned.folder_of(signals, names)
    planned = learned.plan(cut, folder, config.parts.learned, config.memory)
    prepare = partial(_judging, config, models, planned, folder, cut)
    if judged := [{"part": number, "name": name} for number, name in enumerate(learned.part_names(planned))]:
        if config.learned.score:
            workers(None, [{"name": "background"}], "", 0, prepare)
        workers(None, judged, "judging photos", learned.rows(planned), prepare)
    proposing.propose(config, folder, cut, date.fromisoformat(about["day"]))
    records = choosing.choose(config, signals, folder, cut)
    parts = [{"split": split, "shard": number} for split, number in shards.shard_names(cut)]
    workers(partial(_write_shard, config, cut, staging), parts, "writing records", sum(records.values()))
    return finish(config, signals, cut, staging)


_TEXTS = {"documents": "titles", "queries": "queries"}


def _measure_photos(config: CurationConfig, signals: Path, part: Part) -> int:
    return measuring.measure_photos(config, signals, part["part"])


def _measure_texts(config: CurationConfig, signals: Path, table: str, day: date, part: Part) -> int:
    return measuring.measure_texts(signals, table, part["part"], config.texts.brands, today=day)


def _cut_photos(config: CurationConfig, signals: Path, cut: Path, part: Part) -> int:
    return cutting.cut_photos(config.photo, signals, cut, part["part"])


def _cut_texts(config: CurationConfig, signals: Path, cut: Path, table: str, part: Part) -> int:
    kind, rules = ("title", config.texts.title) if table == "documents" else ("query", config.texts.query)
    noise = noise_words.pattern(config.texts.noise_words)
    return cutting.cut_texts(rules, noise, kind, signals / table, cut / _TEXTS[table], part["part"])


def _judging(config: CurationConfig, load: Callable[[], Models], planned: Path, folder: Path, cut: Path) -> Work:
    """Loads the models, and returns what measures a part with them."""
    models, rules = load(), measuring.photo_rules(config.fetching)

    def judge(part: Part) -> int:
        if part["name"] == "background":
            assert config.learned.score is not None
            learned.background(cut, folder, models, rules, config.learned.score.background, config.memory)
            return 0
        return learned.measure(planned, part["part"], part["name"], folder, models, rules)

    return judge


def _write_shard(config: CurationConfig, cut: Path, staging: Staging, part: Part) -> int:
    rules = measuring.photo_rules(config.fetching)
    return shards.write_shard(config, cut, staging, part["split"], part["shard"], rules)
