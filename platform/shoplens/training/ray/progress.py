"""The progress bar of a training run, shown in the driver, where the user is."""

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
    """Rank 0 sets the step; the driver reads it."""

    def __init__(self) -> None:
        self._step, self._rate = 0, 0.0

    def set(self, step: int, samples_per_second: float) -> None:
        self._step, self._rate = step, samples_per_second

    def get(self) -> tuple[int, float]:
        return self._step, self._rate


@contextmanager
def shown(total: int) -> Iterator[ActorHandle]:
    """A bar over `total` steps while the block runs: a live one on a terminal, else a line now and then."""
    progress = Progress.remote()  # type: ignore[attr-defined]
    stop = threading.Event()
    thread = threading.Thread(target=_show, args=(progress, total, stop), daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        stop.set()
        thread.join()


def _show(progress: ActorHandle, total: int, stop: threading.Event) -> None:
    terminal = sys.stderr.isatty()
    last = 0.0
    with tqdm(total=total, desc="training", unit="step", disable=not terminal) as bar:
        while True:
            ending = stop.wait(POLL_S)
            step, rate = ray.get(progress.get.remote())
            bar.set_postfix_str(f"{rate:.0f} samples/s", refresh=False)
            bar.update(step - bar.n)
            if not terminal and step and (ending or time.monotonic() - last > LINE_EVERY_S):
                last = time.monotonic()
                print(
                    f"training  {step:>6}/{total} steps  {100 * step / total:3.0f} %  {rate:.0f} samples/s", flush=True
                )
            if ending:
                return
