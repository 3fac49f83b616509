"""Raw records for the tests of this folder, and a reader of their files."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shoplens.synthetic.raw_records import RawRecords, synthesize_raw

Row = dict[str, Any]

SETTINGS = RawRecords(
    records=180,
    photos=(0.9, 0.1),
    image_size=200,
    photo_flaws=0.5,
    text_flaws=0.4,
    hard_texts=0.3,
    duplicates=0.12,
    queries=12,
)


@dataclass(frozen=True)
class Folder:
    """The folder of raw records."""

    path: Path

    def table(self, name: str) -> list[Row]:
        return pq.read_table(self.path / f"{name}.parquet").to_pylist()

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Bytes of each photo by its path through the tar."""
        found = {}
        for tar in sorted(self.path.glob("*.tar")):
            with tarfile.open(tar) as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    assert file is not None
                    found[f"{tar.name}/{member.name}"] = file.read()
        return found

    @cached_property
    def texts(self) -> list[Row]:
        """Rows of the truth with the `text`."""
        titles = {row["document_id"]: row["title"] for row in self.table("documents")}
        return [
            {**row, "text": titles[row["id"]] if row["kind"] == "title" else row["id"]}
            for row in self.table("truth_texts")
        ]


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    out = tmp_path_factory.mktemp("raw") / "records"
    synthesize_raw(out, SETTINGS, workers=1, progress=False)
    return Folder(out)
