"""Photos per second of `shoplens dataset import`, against decoding of the same files by Pillow.

    python benchmarks/import_images.py PHOTOS_FOLDER [--enlarge 1] [--out result.json] [--repeats 3] [--cpus N]

Pillow only reads and decodes the files, in one process and in one process per CPU. The import also checks the photos,
hashes them (SHA-256 and pHash), and writes shards and tables. Repeats alternate and medians are compared. The ratio is
import / Pillow; at 1.0 the additional work would cost nothing. `ratio_1_process_cpu` compares the least CPU seconds of
one process. Other work on the machine changes it less than the ratios of time.

--enlarge 5 measures large photos: copies of these, five times as wide and high, as JPEGs of quality 90.

Duration at the default size on 2 cores: a minute for 5,000 photos of 20 kB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import PIL
from PIL import Image, ImageChops

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def plain_decode(path: str) -> int:
    with Image.open(path) as image:
        return image.convert("RGB").width


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def enlarge(files: Sequence[str], times: int, folder: Path) -> None:
    """JPEGs of the photos at `times` their size, with noise as cameras have it."""
    folder.mkdir()
    for number, file in enumerate(files):
        with Image.open(file) as image:
            large = image.convert("RGB").resize((times * image.width, times * image.height), Image.Resampling.BICUBIC)
        noise = Image.effect_noise(large.size, 12).convert("RGB")
        ImageChops.add(large, noise, 1, -128).save(folder / f"{number:06d}.jpg", quality=90)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("photos", type=Path, help="folder of JPEG, PNG or WEBP files, searched recursively")
    arguments.add_argument(
        "--enlarge", type=int, default=1, help="measure copies of so many times the width and height"
    )
    arguments.add_argument("--out", type=Path, help="file of the result (JSON); it is also printed")
    arguments.add_argument("--repeats", type=int, default=3, help="timed runs of each")
    arguments.add_argument("--cpus", type=int, default=os.cpu_count() or 1, help="processes of Pillow and CPUs of Ray")
    options = arguments.parse_args()

    import ray

    from shoplens.datasets.importing import import_dataset
    from shoplens.datasets.importing.plan import plan_import
    from shoplens.datasets.importing.shards import write_shard
    from shoplens.datasets.importing.table import Table
    from shoplens.datasets.photo_files import PhotoRules
    from shoplens.datasets.staging import Staging

    root = options.photos.resolve()
    files = sorted(str(file) for file in root.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not files:
        sys.exit(f"{root} has no JPEG, PNG or WEBP files: name a folder of photos")

    with tempfile.TemporaryDirectory() as folder:
        if options.enlarge > 1:
            root = Path(folder, "photos").resolve()
            enlarge(files, options.enlarge, root)
            files = sorted(map(str, root.iterdir()))
        megabytes = sum(os.path.getsize(file) for file in files) / 1e6
        table = f"{folder}/products.jsonl"
        with open(table, "w") as lines:
            for number, file in enumerate(files):
                lines.write(json.dumps({"id": f"p{number}", "title": "photo", "images": [file]}) + "\n")

        def import_on_ray() -> object:
            out = f"{folder}/ray"
            return import_dataset("jsonl", table, out, images=str(root), overwrite=True, progress=False)

        def import_in_one_process() -> None:
            staging = Staging(f"{folder}/one-{time.monotonic_ns()}", {})
            staging.begin()
            for chunk in plan_import(Table(table, str(root)), staging, 1000):
                write_shard(staging, chunk, PhotoRules())
            staging.finish("benchmark", {})

        started = time.perf_counter()
        ray.init(address="local", num_cpus=options.cpus, include_dashboard=False, log_to_driver=False)
        import_on_ray()  # starts Ray's workers and fills the page cache
        ray_start_s = time.perf_counter() - started

        with get_context("spawn").Pool(options.cpus) as pool:
            pool.map(plain_decode, files, chunksize=50)
            seconds: dict[str, list[float]] = {}
            cpu_seconds: dict[str, list[float]] = {}
            for _ in range(options.repeats):
                for name, work in {
                    "pillow_1_process": lambda: [plain_decode(file) for file in files],
                    "import_1_process": import_in_one_process,
                    "pillow_all_cpus": lambda: pool.map(plain_decode, files, chunksize=50),
                    "import_on_ray": import_on_ray,
                }.items():
                    taken, cpu = timed(work)
                    seconds.setdefault(name, []).append(taken)
                    cpu_seconds.setdefault(name, []).append(cpu)
        ray.shutdown()

    speed = {name: len(files) / statistics.median(times) for name, times in seconds.items()}
    result = {
        "benchmark": "import_images",
        "command": " ".join(["python", *sys.argv]),
        "photos": len(files),
        "megabytes": round(megabytes, 1),
        "photos_per_second": {name: round(value, 1) for name, value in speed.items()},
        "ratio_1_process": round(speed["import_1_process"] / speed["pillow_1_process"], 3),
        "ratio_1_process_cpu": round(min(cpu_seconds["pillow_1_process"]) / min(cpu_seconds["import_1_process"]), 3),
        "ratio_all_cpus": round(speed["import_on_ray"] / speed["pillow_all_cpus"], 3),
        "ray_start_and_first_import_s": round(ray_start_s, 1),
        "seconds": {name: [round(t, 3) for t in times] for name, times in seconds.items()},
        "machine": {
            "cpus": options.cpus,
            "processor": platform.processor() or platform.machine(),
            "system": platform.platform(),
            "load_average": os.getloadavg(),
        },
        "versions": {"python": platform.python_version(), "pillow": PIL.__version__, "ray": version("ray")},
    }
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
