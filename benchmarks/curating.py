"""Curations for benchmarks: parts in processes of this machine, without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from shoplens.config import validate
from shoplens.curation.pipeline.config import CurationConfig
from shoplens.curation.pipeline.curate import Part, Work
from shoplens.synthetic.raw_records import RawRecords, synthesize_raw


class Processes:
    """Does the parts of a curation; keeps the seconds of each step, and the peak memory of a process in bytes."""

    def __init__(self, processes: int) -> None:
        self.seconds: dict[str, float] = {}
        self.peak = 0
        self._pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))

    def __call__(
        self,
        work: Work | None,
        parts: Sequence[Part],
        what: str,
        total: int,
        prepare: Callable[[], Work] | None = None,
    ) -> None:
        start = time.perf_counter()
        if work is None:
            assert prepare is not None
            do = prepare()
            for part in parts:
                do(part)
        else:
            for _, peak in self._pool.map(_measured, [work] * len(parts), parts):
                self.peak = max(self.peak, peak)
        self.seconds[what] = self.seconds.get(what, 0) + time.perf_counter() - start
        print(f"{what:<20} {total:>9,}  {time.perf_counter() - start:7.1f} s  {self.peak >> 20:>6,} MB", flush=True)


def _measured(work: Work, part: Part) -> tuple[int, int]:
    """The rows of a part, and the peak memory of this process in bytes; `ru_maxrss` would be that of its parent too."""
    rows = work(part)
    status = Path("/proc/self/status").read_text()
    return rows, 1024 * int(status.partition("VmHWM:")[2].split()[0])


def settings(source: Path, out: Path, **more: Any) -> CurationConfig:
    return validate(CurationConfig, {"raw": str(source), "out": str(out)} | more, "the benchmark")


def raw_records(folder: Path, **options: Any) -> Path:
    """Synthetic raw records with planted flaws, made once."""
    if not folder.exists():
        synthesize_raw(folder, RawRecords(**options))
    return folder
