"""Curations that are killed at random moments: their shards and tables are those of an undisturbed run, byte for byte.

    python benchmarks/curation_kills.py OUT [--records 1500] [--moments 10]

Each moment is used twice: once for SIGKILL of the driver with everything that it started, after which the same command
is given again, and once for SIGKILL of a worker of Ray. Runs have one worker and two in turn.

Duration at the default size on 2 cores: 12 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from curating import raw_records

DRIVER = """
import os, sys
os.environ["RAY_AUTH_MODE"] = "disabled"
import ray
from pathlib import Path
from curating import settings
from shoplens.cluster.quiet import quieten
from shoplens.curation.pipeline.curate import curate
from shoplens.curation.pipeline.learned import Models
from shoplens.curation.photo.text_boxes import Morphology
from functools import partial
from workloads.parts import in_parts
raw, out, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
quieten()
ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
print("started", flush=True)
def do(work, parts, what, total, prepare=None):
    in_parts(work, parts, lambda done: None, workers=workers, prepare=prepare)
sizes = {"photos": 100, "texts": 400, "learned": 100}
curate(settings(raw, out, parts=sizes, shards={"records": 150}, learned={"boxes": {"detector": "morphology"}}),
       {"boxes": "morphology"}, partial(Models, boxes=Morphology()), do)
"""


def start(raw: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    """A driver that has connected to a Ray cluster of its own."""
    here = Path(__file__).parent
    path = os.pathsep.join(
        [str(here), str(here.parent), str(here.parent / "platform"), os.environ.get("PYTHONPATH", "")]
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(raw), str(out), str(workers)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert driver.stdout is not None
    driver.stdout.readline()
    return driver


def kill_family(driver: subprocess.Popen[str]) -> None:
    family = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
    for process in family:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    driver.wait()


def kill_worker(driver: subprocess.Popen[str], rng: random.Random) -> bool:
    """Kills the next worker that is seen at a part; False if the driver ended before."""
    while driver.poll() is None:
        workers = []
        for process in psutil.Process(driver.pid).children(recursive=True):
            try:
                if "ray::Map" in " ".join(process.cmdline()):
                    workers.append(process)
            except psutil.Error:
                continue
        if workers:
            rng.choice(workers).send_signal(signal.SIGKILL)
            return True
        time.sleep(0.002)
    return False


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".tar", ".parquet")
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--records", type=int, default=1500)
    arguments.add_argument("--moments", type=int, default=10)
    chosen = arguments.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    raw = raw_records(chosen.out / f"raw-{chosen.records}", records=chosen.records)
    whole, killed = chosen.out / "undisturbed", chosen.out / "killed"
    for folder in (whole, killed):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(f"{folder}.signals", ignore_errors=True)
    begun = time.monotonic()
    assert start(raw, whole, 2).wait() == 0, "the undisturbed run failed"
    length = time.monotonic() - begun
    expected = content(whole)
    print(f"undisturbed: {length:.1f} s, {len(expected)} files", flush=True)
    rng, results = random.Random(7), []
    for moment in range(chosen.moments):
        for whom in ("driver", "worker"):
            shutil.rmtree(killed, ignore_errors=True)
            shutil.rmtree(f"{killed}.signals", ignore_errors=True)
            shutil.rmtree(f"{killed}.partial", ignore_errors=True)
            workers, after = 1 + moment % 2, rng.uniform(0.05, 0.8) * length
            driver = start(raw, killed, workers)
            time.sleep(after)
            hit = driver.poll() is None
            if whom == "driver" and hit:
                kill_family(driver)
                driver = start(raw, killed, workers)
            elif hit:
                hit = kill_worker(driver, rng)
            code = driver.wait()
            same = code == 0 and content(killed) == expected
            results.append({"whom": whom, "after_s": after, "workers": workers, "hit": hit, "same": same})
            print(f"{whom} killed after {after:5.1f} s, {workers} worker(s): hit {hit}, same bytes {same}", flush=True)
    print(f"{sum(one['same'] for one in results)} of {len(results)} have the same bytes")
    (chosen.out / "curation_kills.json").write_text(json.dumps(results, indent=1))
    if not all(one["same"] for one in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
