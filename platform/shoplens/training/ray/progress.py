"""Progress bars of work on the cluster, shown in the driver, where the user is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.actor import ActorHandle
from tqdm import tqdm

POLL_S = 0.5
LINE_EVERY_S = 10.0


@ray.remote(num_cpus=0)
class Progress:
    """The worker (rank 0) sets what is done; the driver reads it."""

    def __init__(self) -> None:
        self._done, self._rate = 0, 0.0

    def set(self, done: int, per_second: float) -> None:
        self._done, self._rate = done, per_second

    def get(self) -> tuple[int, float]:
        return self._done, self._rate


@contextmanager
def shown(total: int, work: str = "training", unit: str = "steps", rate: str = "samples/s") -> Iterator[ActorHandle]:
    """A bar over `total` units while the block runs: a live one on a terminal, else a line now and then."""
    progress = Progress.remote()  # type: ignore[attr-defined]
    stop = threading.Event()
    thread = threading.Thread(target=_show, args=(progress, total, (work, unit, rate), stop), daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        stop.set()
        thread.join()


def _show(progress: ActorHandle, total: int, words: tuple[str, str, str], stop: threading.Event) -> None:
    work, unit, per_second = words
    terminal = sys.stderr.isatty()
    last = 0.0
    with tqdm(total=total, desc=work, unit=f" {unit}", disable=not terminal) as bar:
        while True:
            ending = stop.wait(POLL_S)
            done, rate = ray.get(progress.get.remote())
            bar.set_postfix_str(f"{rate:.0f} {per_second}", refresh=False)
            bar.update(done - bar.n)
            if not terminal and done and (ending or time.monotonic() - last > LINE_EVERY_S):
                last = time.monotonic()
                share = 100 * done / total
                print(f"{work}  {done:>6}/{total} {unit}  {share:3.0f} %  {rate:.0f} {per_second}", flush=True)
            if ending:
                return
