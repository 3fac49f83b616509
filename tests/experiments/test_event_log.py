"""The event log under crashes: killed processes and truncated files lose no acknowledged event."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoplens.errors import ShoplensError
from shoplens.experiments.event_log import MAGIC, EventLog, FolderTaken, Sealing, frame, read, whole_frames
from shoplens.experiments.events import EVENTS, Event
from tests.experiments.conftest import MakeEvent

NEVER = Sealing(after_bytes=1 << 40, after_seconds=1e6)
AT_ONCE = Sealing(after_bytes=1)
STATE = {
    "time": "2026-03-01T00:00:00Z",
    "user_id": "u",
    "product_id": "p",
    "kind": "click",
    "experiment": "e",
    "arm": "champion",
    "request_id": "r",
}


@pytest.fixture(scope="module")
def start() -> Callable[..., BaseProcess]:
    """Starts a function in a process that has already imported this module."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])

    def begin(target: Callable[..., None], *arguments: Any) -> BaseProcess:
        process = context.Process(target=target, args=arguments)
        process.start()
        return process

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        begin(int).join()
    return begin


def ids(root: Path) -> Counter[str]:
    return Counter(read(root)["event_id"].to_pylist())


@pytest.fixture
def killed(tmp_path: Path, make: MakeEvent, start: Callable[..., BaseProcess]) -> Path:
    """The folder of a writer that died after it had logged the events a, b and c in three calls."""
    start(_log_and_die, str(tmp_path / "log"), [make(event_id=name).model_dump() for name in "abc"]).join()
    return tmp_path / "log" / "w"


def _log_and_die(root: str, records: list[dict[str, Any]]) -> None:
    log = EventLog(root, "w", NEVER)
    for record in records:
        log.append([Event.model_validate(record)])
    os._exit(0)


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "user_id": texts,
                "product_id": texts,
                "kind": st.sampled_from(["impression", "click", "purchase"]),
                "position": st.none() | st.integers(0, 100_000),
                "propensity": st.none() | st.floats(0, 1, exclude_min=True),
                "seed_product_id": st.none() | texts,
                "amount": st.floats(0, 1e12),
            }
        ),
        max_size=8,
    )
)
def test_what_is_read_is_what_was_appended_sealed_or_not(
    tmp_path: Path, make: MakeEvent, rows: list[dict[str, object]]
) -> None:
    events = [make(**(row if row["kind"] == "purchase" else {**row, "amount": None})) for row in rows]
    root = tmp_path / str(time.monotonic_ns())
    with EventLog(root, "w", NEVER) as log:
        log.append(events[:3])
        log.append(events[3:])
        unsealed = read(root)
    assert unsealed.schema == EVENTS
    assert unsealed.to_pylist() == [event.model_dump() for event in events]
    assert read(root).to_pylist() == unsealed.to_pylist()
    assert not list(root.glob("*/*.events"))


def test_many_threads_are_logged_whole_and_sealed_by_size(tmp_path: Path, make: MakeEvent) -> None:
    with EventLog(tmp_path, "w", Sealing(after_bytes=4000)) as log, ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda n: log.append([make(event_id=f"{n}-{k}") for k in range(1 + n % 3)]), range(200)))
        counted = ids(tmp_path)
    expected = Counter(f"{n}-{k}" for n in range(200) for k in range(1 + n % 3))
    assert counted == ids(tmp_path) == expected
    assert len(list(tmp_path.glob("w/*.parquet"))) > 3


def test_a_segment_is_sealed_by_age_though_nothing_follows(tmp_path: Path, make: MakeEvent) -> None:
    with EventLog(tmp_path, "w", Sealing(after_seconds=0.05)) as log:
        log.append([make(event_id="a")])
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob("w/*.parquet")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        log.append([make(event_id="b")])
        assert ids(tmp_path) == {"a": 1, "b": 1}


def test_an_event_that_was_sent_again_counts_once_wherever_it_was_logged(tmp_path: Path, make: MakeEvent) -> None:
    with EventLog(tmp_path, "replica-1", AT_ONCE) as one, EventLog(tmp_path, "replica-2", NEVER) as two:
        one.append([make(event_id="a"), make(event_id="b", position=1), make(event_id="b", position=2)])
        two.append([make(event_id="b", position=3), make(event_id="c")])
        one.append([make(event_id="c")])
        table = read(tmp_path)
    assert Counter(table["event_id"].to_pylist()) == {"a": 1, "b": 1, "c": 1}
    assert table.filter(table["event_id"].to_numpy() == "b")["position"].to_pylist() == [1], "the first one stays"


def test_one_writer_a_folder(tmp_path: Path, make: MakeEvent) -> None:
    with EventLog(tmp_path, "w"):
        with pytest.raises(FolderTaken, match="has a writer already: give every replica a name of its own"):
            EventLog(tmp_path, "w")
        EventLog(tmp_path, "v").close()
    EventLog(tmp_path, "w").close()


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ShoplensError, match="file/w cannot be written to: "):
        EventLog(tmp_path / "file", "w")


@pytest.mark.parametrize("name", ["", ".", "..", "../w", "a/b", ".w", "w" * 101, "a\n", "콩"])
def test_names_that_are_no_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ShoplensError, match="cannot name a folder"):
        EventLog(tmp_path / "root", name)
    assert not (tmp_path / "root").exists()


def test_a_torn_tail_is_dropped_at_every_byte_and_nothing_before_it(
    killed: Path, tmp_path: Path, make: MakeEvent
) -> None:
    (segment,) = killed.glob("*.events")
    data = segment.read_bytes()
    third = data.rindex(MAGIC)
    for end in [*range(third, third + 14), *range(third + 14, len(data), 61), len(data) - 1]:
        for junk in (b"", b"\0" * 64):
            root = tmp_path / "cut"
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(killed, root / "w")
            (root / "w" / segment.name).write_bytes(data[:end] + junk)
            assert ids(root) == {"a": 1, "b": 1}
            with EventLog(root, "w") as log:
                log.append([make(event_id="d")])
                assert ids(root) == {"a": 1, "b": 1, "d": 1}


def test_damage_before_the_tail_is_refused_and_not_dropped(killed: Path) -> None:
    (segment,) = killed.glob("*.events")
    data = bytearray(segment.read_bytes())
    for at in (0, 5, 9, 40):
        damaged = data.copy()
        damaged[at] ^= 1
        segment.write_bytes(damaged)
        for attempt in (read, lambda root: EventLog(root, "w")):
            with pytest.raises(ShoplensError, match="events is damaged at byte 0, and what follows is whole"):
                attempt(killed.parent)
    segment.write_bytes(data)
    assert ids(killed.parent) == {"a": 1, "b": 1, "c": 1}
    EventLog(killed.parent, "w").close()
    (sealed,) = killed.glob("*.parquet")
    sealed.write_bytes(sealed.read_bytes()[:-9])
    with pytest.raises(ShoplensError, match="parquet is damaged"):
        read(killed.parent)


def test_a_crash_between_any_two_steps_of_sealing_loses_and_repeats_nothing(killed: Path, make: MakeEvent) -> None:
    """Two crashes: half a Parquet file is written; the whole file is renamed but its segment still exists."""
    (segment,) = killed.glob("*.events")
    root, kept = killed.parent, segment.read_bytes()
    expected = {"a": 1, "b": 1, "c": 1}

    segment.with_suffix(".partial").write_bytes(b"PAR1 half of it")
    assert ids(root) == expected
    EventLog(root, "w").close()
    assert [path.suffix for path in sorted(killed.iterdir()) if path.suffix] == [".parquet"]

    segment.write_bytes(kept)
    assert ids(root) == expected
    with EventLog(root, "w") as log:
        assert not segment.exists()
        log.append([make(event_id="d")])
        assert ids(root) == {**expected, "d": 1}
    assert sum(pq.read_metadata(path).num_rows for path in killed.glob("*.parquet")) == 4


def test_a_full_disk_is_told_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """A limit of 3 kB on file sizes simulates the full disk. Later the limit is lifted."""
    script = (
        "import resource, sys\n"
        "from shoplens.errors import ShoplensError\n"
        "from shoplens.experiments.event_log import EventLog, Sealing, read\n"
        "from shoplens.experiments.events import Event\n"
        f"state = {STATE!r}\n"
        "acknowledged, refused = [], ''\n"
        "with EventLog(sys.argv[1], 'w', Sealing(after_bytes=10**6)) as log:\n"
        "    for n in range(60):\n"
        "        if n == 40:\n"
        "            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "        if n == 5:\n"
        "            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))\n"
        "        try:\n"
        "            log.append([Event.model_validate({**state, 'event_id': str(n)})])\n"
        "            acknowledged.append(str(n))\n"
        "        except ShoplensError as error:\n"
        "            refused = str(error)\n"
        "found = read(sys.argv[1])['event_id'].to_pylist()\n"
        "assert set(acknowledged) <= set(found) and len(set(found)) == len(found), (acknowledged, found)\n"
        "assert {'0', '41', '59'} <= set(acknowledged), acknowledged\n"
        "assert 'could not be logged' in refused and 'large' in refused, refused\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_closed_log_takes_nothing(tmp_path: Path, make: MakeEvent) -> None:
    log = EventLog(tmp_path, "w")
    log.append([])
    log.close()
    log.close()
    with pytest.raises(ShoplensError, match="is closed"):
        log.append([make()])
    assert read(tmp_path).num_rows == 0


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShoplensError, match="there is no event log"):
        read(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ShoplensError, match="is no event log: name the folder that holds the writers' folders"):
        read(tmp_path)


@given(st.lists(st.binary(max_size=30)), st.binary(max_size=30))
def test_frames_are_told_from_what_is_torn(payloads: list[bytes], torn: bytes) -> None:
    whole = b"".join(map(frame, payloads))
    assert whole_frames(whole + torn, "x") == (payloads, len(torn))


def _write_until_killed(root: str, acknowledged: str, run: int, sealing: Sealing) -> None:
    """Eight threads append batches and record the ids that were acknowledged."""
    notes = os.open(acknowledged, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    log = EventLog(root, "w", sealing)

    def work(thread: int) -> None:
        for n in range(10**9):
            names = [f"{run}-{thread}-{n}-{k}" for k in range(1 + n % 4)]
            log.append([Event.model_validate({**STATE, "event_id": name}) for name in names])
            os.write(notes, "".join(f"{name}\n" for name in names).encode())

    for thread in range(8):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    time.sleep(60)


def test_a_writer_killed_under_load_loses_no_acknowledged_event(
    tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    """SIGKILL at random moments, in every second run during sealing. All runs share one folder."""
    root, notes = tmp_path / "log", tmp_path / "acknowledged"
    rng = random.Random(0)
    in_sealing = 0
    for run in range(24):
        process = start(_write_until_killed, str(root), str(notes), run, Sealing(after_bytes=3000 + 1000 * run))
        try:
            deadline = time.monotonic() + 30
            size = notes.stat().st_size if notes.exists() else 0
            while not notes.exists() or notes.stat().st_size == size:
                assert process.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.1))
            if run % 2:
                while not list(root.glob("w/*.partial")):
                    assert time.monotonic() < deadline
        finally:
            process.kill()
            process.join()
        in_sealing += bool(list(root.glob("w/*.partial")))
        if run % 8 == 7:
            counted = ids(root)
            assert set(notes.read_text().split()) <= counted.keys()
            assert set(counted.values()) == {1}
    assert in_sealing >= 5
    EventLog(root, "w").close()
    acknowledged, counted = notes.read_text().split(), ids(root)
    assert len(acknowledged) == len(set(acknowledged)) > 1000
    assert set(acknowledged) <= counted.keys()
    assert set(counted.values()) == {1}
    rows = sum(pq.read_metadata(path).num_rows for path in root.glob("w/*.parquet"))
    assert rows == len(counted), "no event is in two files"
