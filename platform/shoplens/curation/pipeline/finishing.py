"""The beginning and the end of a curation's dataset: what identifies it, the ledger, the report and the manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from shoplens.curation.pipeline.config import CurationConfig
from shoplens.curation.pipeline.files import write_groups
from shoplens.curation.pipeline.ledger import LEDGER_WITH_SOURCE
from shoplens.curation.pipeline.proposing import as_csv, proposed
from shoplens.curation.pipeline.report import RECORDS_LEFT, Step, costs, funnel, report
from shoplens.curation.pipeline.tables import connect
from shoplens.curation.text.personal_data.detection import masked, personal_data
from shoplens.datasets.format import SIDE_TABLES, Dataset
from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError


def open_dataset(
    config: CurationConfig, about: Mapping[str, Any], models: Mapping[str, str], overwrite: bool
) -> Staging:
    """The unfinished dataset, begun or resumed. Raises ShoplensError if `out` exists and `overwrite` is not set."""
    rules = config.model_dump(mode="json", exclude={"out", "signals", "memory"})
    provenance = {"made_by": "workloads.curate", "config": rules, "measured": dict(about), "models": dict(models)}
    held_out = [Dataset(path).digest for path in config.held_out]
    staging = Staging(config.out, {**provenance, "held_out": held_out, "versions": {"shoplens": version("shoplens")}})
    staging.begin(overwrite)
    return staging


class Curated(NamedTuple):
    """A finished curation, its report as HTML, and the number of words that are proposed as noise.

    As text: what each step left, and the next command.
    """

    dataset: Dataset
    steps: list[Step]
    report: str
    noise_words: int

    def __str__(self) -> str:
        manifest, path = self.dataset.manifest, self.dataset.path
        train = "python -m workloads.train workloads/configs/eclip.yaml"
        return "\n".join(
            [
                *(f"  {step.title:<28} {step.left:>12,}" for step in self.steps),
                f"{manifest.name}: {manifest.counts['images']:,} records, digest {manifest.digest[:12]}, in {path}",
                f"what was dropped and why: {path}/report.html, and {manifest.counts['ledger']:,} rows in ledger.parquet",
                *(
                    [f"noise words to review: {self.noise_words:,} in {path}/noise_words.csv"]
                    if self.noise_words
                    else []
                ),
                f"next: ray job submit --working-dir . -- {train} dataset={path} image_texts.title_share=0.3",
            ]
        )


def finish(config: CurationConfig, signals: Path, cut: Path, staging: Staging) -> Curated:
    """Writes the ledger, the report and the proposed noise words, and moves the dataset to `out`.

    Raises ShoplensError if no record is left.
    """
    ledger = cut / "ledger.parquet"
    if not ledger.exists():
        with connect(cut, config.memory) as database:
            found = [
                signals / "tables.ledger.parquet",
                *sorted(cut.glob("*.ledger/*.parquet")),
                *sorted(cut.glob("*.ledger.parquet")),
            ]
            database.read_parquet(list(map(str, found))).create_view("entries")
            database.read_parquet(str(signals / "documents.parquet")).create_view("documents")
            day = date.fromisoformat(json.loads((signals / "measured.json").read_text())["day"])
            rows = map(partial(_masked, day=day), database.sql(_LEDGER).to_arrow_reader(1 << 14))
            write_groups(ledger, rows, LEDGER_WITH_SOURCE, 1 << 17)
    with connect(cut, config.memory) as database:
        steps = funnel(database, signals, cut)
        if not next(step.left for step in steps if step.title == RECORDS_LEFT):
            dear = ", ".join(
                f"{cost.reason} {cost.alone:,}" for cost in costs(database, ledger) if cost.kind == "photo"
            )
            raise ShoplensError(
                f"no record is left of the photos (dropped: {dear}): loosen a rule, or check the tables"
            )
        words = proposed(cut)
        page = report(config, database, signals, cut, steps, words)
    staging.add_table("ledger", ledger)
    staging.fs.pipe_file(f"{staging.root}/report.html", page.encode())
    if words:
        staging.fs.pipe_file(f"{staging.root}/noise_words.csv", as_csv([word for word, _ in words]))
    provenance = {**staging.fingerprint, "funnel": {step.title: step.left for step in steps}}
    provenance.pop("columns")
    provenance["measured"].pop("token")
    dataset = staging.finish(config.name, provenance, {**SIDE_TABLES, "ledger": LEDGER_WITH_SOURCE})
    return Curated(dataset, steps, page, len(words))


def _masked(rows: pa.RecordBatch, day: date) -> pa.RecordBatch:
    """The rows with personal data hidden. What the rules keep, or never saw, may hold some."""
    place = rows.schema.get_field_index("text")
    found = {
        text: masked(text, personal_data(text, today=day))
        for text in rows["text"].unique().to_pylist()
        if text is not None
    }
    hidden = [found.get(text) for text in rows["text"].to_pylist()]
    return rows.set_column(place, "text", pa.array(hidden, pa.string()))


_LEDGER = """
    SELECT e.kind, e.number, e.id, coalesce(e.document_id, t.document_id) AS document_id,
           coalesce(t.source, d.source, '') AS source, e.text, e.stage, e.reason, e.detail, e.value, e.threshold
    FROM entries e
    LEFT JOIN documents t ON e.kind = 'title' AND t.number = e.number
    LEFT JOIN (SELECT document_id, min_by(source, number) AS source FROM documents GROUP BY document_id) d
           ON d.document_id = e.document_id
    ORDER BY ALL"""
