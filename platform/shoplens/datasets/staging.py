"""Staging of a dataset: it is written to `OUT.partial` and moved to `OUT` in one step.

The work is divided into chunks. A chunk writes one tar and then its table rows to `OUT.partial`. It is done once a
`.done` file exists. The same command resumes a killed run and keeps the chunks that are done, if the `fingerprint`
(source, options, versions) and the columns of the format are unchanged. Otherwise it starts from scratch.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shoplens.datasets.format import FORMAT_VERSION, TABLES, Dataset, Manifest
from shoplens.datasets.parquet import read_parquet
from shoplens.errors import ShoplensError
from shoplens.schema import CategoryTree

_FIXED_TIME = 0
_WRITTEN_AT_ONCE = 2**20


class Shard:
    """A tar in WebDataset layout that is being written. It gets its final name only when it is complete.

    `sha256` is that of the whole tar, once it is closed.
    """

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str) -> None:
        self._fs, self._path = fs, path
        self._file = fs.open(f"{path}.part", "wb")
        self._pending: list[bytes] = []
        self._written = self._position = 0
        self._sha256 = hashlib.sha256()
        self.sha256 = ""

    def __enter__(self) -> Shard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._pending.append(b"\0" * (2 * tarfile.BLOCKSIZE))
            self._write()
        self._file.close()
        if kind is None:
            self._fs.mv(f"{self._path}.part", self._path)
            self.sha256 = self._sha256.hexdigest()

    def add(self, image_id: str, image: bytes, suffix: str, product_json: str, caption: str | None = None) -> int:
        """Adds `IMAGE_ID.suffix`, `IMAGE_ID.json` and, with a caption, `IMAGE_ID.txt`.

        Returns the byte offset of the image in the tar.
        """
        offset = self._member(f"{image_id}.{suffix}", image)
        self._member(f"{image_id}.json", product_json.encode())
        if caption is not None:
            self._member(f"{image_id}.txt", caption.encode())
        return offset

    def _member(self, name: str, data: bytes) -> int:
        header = _header(name, len(data))
        padding = -len(data) % tarfile.BLOCKSIZE
        self._pending += [header, data, b"\0" * padding]
        offset = self._position + len(header)
        self._position = offset + len(data) + padding
        if self._position - self._written >= _WRITTEN_AT_ONCE:
            self._write()
        return offset

    def _write(self) -> None:
        block = b"".join(self._pending)
        self._pending.clear()
        self._file.write(block)
        self._sha256.update(block)
        self._written = self._position


def _header(name: str, size: int) -> bytes:
    """The header of a tar member. One with a short plain name is an edited copy: tarfile needs five times as long."""
    if len(name) > tarfile.LENGTH_NAME or not name.isascii() or size >= 8**11:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = size, _FIXED_TIME
        return info.tobuf(tarfile.PAX_FORMAT)
    header = bytearray(_EMPTY_HEADER)
    header[: len(name)] = name.encode()
    header[124:135] = b"%011o" % size
    header[148:154] = b"%06o" % (_EMPTY_SUM + sum(header[: len(name)]) + sum(header[124:135]))
    return bytes(header)


_EMPTY_HEADER = tarfile.TarInfo("").tobuf(tarfile.PAX_FORMAT)
_EMPTY_SUM = sum(_EMPTY_HEADER) - sum(_EMPTY_HEADER[124:135]) - sum(_EMPTY_HEADER[148:156]) + 8 * ord(" ")


class Staging:
    """The folder `OUT.partial` of an unfinished dataset. It pickles, so any process can write a chunk."""

    def __init__(self, out: str, fingerprint: Mapping[str, Any]) -> None:
        self.out = os.path.abspath(out) if "://" not in out else out.rstrip("/")
        mark = {**fingerprint, "columns": {name: schema.names for name, schema in TABLES.items()}}
        self.fingerprint = json.loads(json.dumps(mark, sort_keys=True, default=str))
        self._fs, self._final = fsspec.core.url_to_fs(self.out)
        self.root = f"{self._final}.partial"
        self._shards: dict[str, Shard] = {}

    def __reduce__(self) -> tuple[type[Staging], tuple[str, Mapping[str, Any]]]:
        return Staging, (self.out, self.fingerprint)

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The filesystem of `root`. The folder `root/parts` is removed when the dataset is finished."""
        return self._fs

    def begin(self, overwrite: bool = False) -> bool:
        """Makes the folder and returns False, or resumes a run with the same fingerprint and returns True.

        Raises ShoplensError if OUT exists already and `overwrite` is not set.
        """
        taken = self._fs.exists(self._final) and (not self._fs.isdir(self._final) or self._fs.ls(self._final))
        if taken and not overwrite:
            raise ShoplensError(f"{self.out} exists already: choose another folder, or pass --overwrite")
        mark = f"{self.root}/fingerprint.json"
        if self._fs.exists(mark) and json.loads(self._fs.cat_file(mark)) == self.fingerprint:
            return True
        if self._fs.exists(mark):
            self._fs.rm(mark)  # first, so that a half-removed folder is never resumed
        if self._fs.exists(self.root):
            self._fs.rm(self.root, recursive=True)
        for folder in ("shards", "parts"):
            self._fs.makedirs(f"{self.root}/{folder}", exist_ok=True)
        self._fs.pipe_file(mark, json.dumps(self.fingerprint).encode())
        return False

    def is_done(self, chunk: str) -> bool:
        return bool(self._fs.exists(f"{self.root}/parts/{chunk}.done"))

    def reopen(self, chunk: str) -> None:
        """Marks a finished chunk as not done."""
        self._fs.rm(f"{self.root}/parts/{chunk}.done")

    def chunk_rows(self, chunk: str, table: str, columns: Sequence[str]) -> list[dict[str, Any]]:
        """The rows that a finished chunk contributes to `table`."""
        with self._fs.open(f"{self.root}/parts/{chunk}.{table}.parquet", "rb") as file:
            rows: list[dict[str, Any]] = read_parquet(file, columns).to_pylist()
        return rows

    def shard(self, name: str) -> Shard:
        """A shard to be written. Its checksum is kept if it is closed before the chunk is written by the same object."""
        self._shards[name] = Shard(self._fs, f"{self.root}/shards/{name}")
        return self._shards[name]

    def write_chunk(
        self,
        chunk: str,
        tables: Mapping[str, Iterable[Mapping[str, Any]]],
        extra: Mapping[str, pa.Schema] | None = None,
    ) -> None:
        """Writes the rows that a chunk contributes to each table. Chunks are merged in the order of their names.

        extra   schemas of tables that are not in `TABLES`; pass the same to `finish`
        """
        schemas = {**TABLES, **(extra or {})}
        for name, rows in tables.items():
            table = pa.Table.from_pylist(list(rows), schema=schemas[name])
            buffer = io.BytesIO()
            pq.write_table(table, buffer)
            path = f"{self.root}/parts/{chunk}.{name}.parquet"
            self._fs.pipe_file(f"{path}.part", buffer.getvalue())
            self._fs.mv(f"{path}.part", path)
        checksums = {f"shards/{name}": shard.sha256 for name, shard in self._shards.items() if shard.sha256}
        self._shards.clear()
        self._fs.pipe_file(f"{self.root}/parts/{chunk}.done", json.dumps(checksums).encode())

    def add_table(self, table: str, file: Path) -> None:
        """Adds the rows of a Parquet file to a table that is passed to `finish` as `extra`."""
        path = f"{self.root}/parts/{table}.{table}.parquet"
        self._fs.put_file(str(file), f"{path}.part")
        self._fs.mv(f"{path}.part", path)

    def _parts(self, name: str) -> Iterator[pa.Table]:
        for path in sorted(self._fs.glob(f"{self.root}/parts/*.{name}.parquet")):
            with self._fs.open(path) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
                for group in range(parquet.num_row_groups):
                    yield parquet.read_row_group(group, use_threads=False)

    def _merge(self, name: str, parts: Iterable[pa.Table], schema: pa.Schema | None = None) -> int:
        rows = 0
        with (
            self._fs.open(f"{self.root}/{name}.parquet", "wb") as file,
            pq.ParquetWriter(file, schema or TABLES[name], compression="zstd") as writer,
        ):
            for part in parts:
                if part.num_rows:
                    writer.write_table(part)
                    rows += part.num_rows
        return rows

    def finish(self, name: str, provenance: Mapping[str, Any], extra: Mapping[str, pa.Schema] | None = None) -> Dataset:
        """Merges the chunks, writes the category table and the manifest, and moves the folder to OUT.

        extra   schemas by name of tables that are not in `TABLES`; they are merged, counted and hashed too

        Products without a photo are left out and listed in `rejects`.
        Raises ShoplensError if no photo is left; the rejects stay readable in OUT.partial.
        """
        by_split: Counter[str] = Counter()
        by_reason: Counter[str] = Counter()
        pictured: set[str] = set()
        places: dict[tuple[str, ...], str] = {}
        n_products: Counter[str] = Counter()
        bare: list[dict[str, Any]] = []

        def images() -> Iterator[pa.Table]:
            for part in self._parts("images"):
                pictured.update(part["product_id"].to_pylist())
                by_split.update(part["split"].to_pylist())
                yield part

        def products() -> Iterator[pa.Table]:
            for part in self._parts("products"):
                kept = pa.array([product_id in pictured for product_id in part["product_id"].to_pylist()], pa.bool_())
                for product_id in part.filter(pc.invert(kept))["product_id"].to_pylist():
                    detail = (
                        "every photo of the product was rejected, or none was listed; give the product a readable photo"
                    )
                    bare.append({"product_id": product_id, "reason": "no_photo", "detail": detail})
                part = part.filter(kept)
                for path, category_id in zip(
                    part["category_path"].to_pylist(), part["category_id"].to_pylist(), strict=True
                ):
                    if path:
                        places[tuple(path)] = category_id
                        n_products[category_id] += 1
                yield part

        def rejects() -> Iterator[pa.Table]:
            for part in [*self._parts("rejects"), pa.Table.from_pylist(bare, schema=TABLES["rejects"])]:
                by_reason.update(part["reason"].to_pylist())
                yield part

        counts = {"images": self._merge("images", images())}
        counts["products"] = self._merge("products", products())
        counts["rejects"] = self._merge("rejects", rejects())
        for table in ("topics", "interactions"):
            counts[table] = self._merge(table, self._parts(table))
        for table, schema in (extra or {}).items():
            counts[table] = self._merge(table, self._parts(table), schema)
        categories = CategoryTree.of(places.items())
        counts["categories"] = self._merge("categories", [_category_table(categories, n_products)])
        if not counts["images"]:
            reasons = (
                ", ".join(f"{count} {reason}" for reason, count in by_reason.most_common()) or "the source is empty"
            )
            self._fs.rm(f"{self.root}/fingerprint.json")
            raise ShoplensError(
                f"no photo is left ({reasons}): see each sentence with: shoplens dataset rejects {self.root}"
            )

        known: dict[str, str] = {}
        for path in self._fs.glob(f"{self.root}/parts/*.done"):
            known |= json.loads(self._fs.cat_file(path) or b"{}")
        paths = [f"{self.root}/{table}.parquet" for table in [*TABLES, *(extra or {})]]
        names = {
            str(PurePosixPath(path).relative_to(PurePosixPath(self.root))): path
            for path in sorted(paths + self._fs.glob(f"{self.root}/shards/*.tar"))
        }
        files = {name: known.get(name) or self._sha256(path) for name, path in names.items()}
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=name,
            digest=hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest(),
            counts=counts,
            photos_by_split=dict(sorted(by_split.items())),
            rejects_by_reason=dict(sorted(by_reason.items())),
            files=files,
            provenance=dict(provenance),
        )
        self._fs.pipe_file(f"{self.root}/manifest.json", manifest.model_dump_json(indent=1).encode())
        self._fs.rm(f"{self.root}/fingerprint.json")  # before the parts: a half-removed folder must not be resumed
        self._fs.rm(f"{self.root}/parts", recursive=True)
        if self._fs.exists(self._final):
            self._fs.rm(self._final, recursive=True)
        self._fs.mv(self.root, self._final, recursive=True)
        return Dataset(self.out)

    def _sha256(self, path: str) -> str:
        with self._fs.open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


def _category_table(tree: CategoryTree, n_products: Mapping[str, int]) -> pa.Table:
    nodes = list(tree)
    total = Counter(n_products)
    for node in reversed(nodes):
        if node.parent_id is not None:
            total[node.parent_id] += total[node.id]
    rows = [
        {
            "category_id": node.id,
            "parent_id": node.parent_id,
            "level": node.level,
            "name": node.name,
            "path": list(node.path),
            "order": node.order,
            "last": node.last,
            "n_products": total[node.id],
        }
        for node in nodes
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["categories"])
