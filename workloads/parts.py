"""Work that is divided into parts, as a Ray Data job: one row a part, in any order, on any node.

A part that is done is done again at no cost, so a part whose worker died is simply given to another one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shoplens.errors import ShoplensError

TOGETHER = 10_000
"""Parts that are planned at a time: Ray Data keeps some kB for each."""

Part = Mapping[str, Any]


def in_parts(
    work: Callable[[Part], int] | None,
    parts: Sequence[Part],
    progress: Callable[[int], None],
    *,
    workers: int | None = None,
    prepare: Callable[[], Callable[[Part], int]] | None = None,
    gpus: float = 0,
) -> int:
    """Calls `work` for each part and returns the sum of what it returned; `progress` is told the sum so far.

    workers   parts at a time; None: as many as there are CPUs
    prepare   makes `work` in each worker, for models that are loaded once; pass None for `work`

    Raises ShoplensError if a part does, or if a disk is full; ValueError if it has neither `work` nor `prepare`.
    """
    import ray.data
    from ray.data import ActorPoolStrategy

    done = 0
    for first in range(0, len(parts), TOGETHER):
        some = [dict(part) for part in parts[first : first + TOGETHER]]
        rows = ray.data.from_items(some, override_num_blocks=len(some))
        if work is not None:
            results = rows.map(_Task(work), num_cpus=1, concurrency=workers)
        elif prepare is not None:
            cpus = int(ray.cluster_resources().get("CPU", 1))
            pool = ActorPoolStrategy(min_size=1, max_size=min(workers or cpus, len(some)))
            results = rows.map(_Worker, fn_constructor_args=(prepare,), compute=pool, num_cpus=1, num_gpus=gpus)
        else:
            raise ValueError("neither work nor prepare")
        for row in results.iter_rows():
            if row["fault"]:
                raise ShoplensError(row["fault"])
            done += row["rows"]
            progress(done)
    return done


class _Task:
    def __init__(self, work: Callable[[Part], int]) -> None:
        self._work = work

    def __call__(self, part: Part) -> dict[str, Any]:
        """The rows of the part, or the sentence of a fault that the user can mend: Ray would wrap it in its own."""
        try:
            return {"rows": self._work(part), "fault": ""}
        except ShoplensError as error:
            return {"rows": 0, "fault": str(error)}
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            place = f" at {error.filename}" if error.filename else ""
            return {
                "rows": 0,
                "fault": f"the disk is full{place}: make room, and run the same command again; it goes on",
            }


class _Worker(_Task):
    def __init__(self, prepare: Callable[[], Callable[[Part], int]]) -> None:
        super().__init__(prepare())
