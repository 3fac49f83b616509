"""Drawing in parallel processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context

from shoplens.errors import ShoplensError


def in_parallel(tasks: Iterable[Callable[[], int]], workers: int, what: str) -> Iterator[int]:
    """Runs picklable tasks and yields the result of each, in any order. 1 worker is this process.

    At most 2 * `workers` tasks are queued at a time. Raises ShoplensError, which names `what`, if a process dies.
    """
    if workers <= 1:
        for task in tasks:
            yield task()
        return
    waiting = iter(tasks)
    pending: set[Future[int]] = set()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            while True:
                pending |= {pool.submit(task) for task in islice(waiting, 2 * workers - len(pending))}
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise ShoplensError(
                f"a process that draws {what} died (out of memory?): run the same command again"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
