"""Training throughput of shoplens against open_clip's own training program.

    python benchmarks/train_against_open_clip.py DATASET [--device cuda] [--batch 64] [--steps 40] [--out result.json]

Both train the same towers from the same random weights, on the same photos, batch size, cores and number of decoding
processes. open_clip reads the photos through a CSV with its own data loader. shoplens reads the dataset through Ray Data.
Runs of the two alternate. The result has, for both and from the third step on, samples per second and the share of
time spent waiting for data. The ratio is shoplens / open_clip.

Duration at the default size on 2 cores: about 6 minutes (estimate), after the download of open_clip.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from peers import OPEN_CLIP, OPEN_CLIP_TRAINING, SMALL_TOWERS, environment, save_small_open_clip

from shoplens.cluster.loopback import start_own_ray_on_loopback

CONFIG = Path(__file__).parents[1] / "workloads/configs/eclip_finetune.yaml"
STEP = re.compile(r"Data \(t\): ([\d.]+) Batch \(t\): ([\d.]+)")
WARM_UP = 2


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("dataset", type=Path, help="folder of a dataset")
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments.add_argument("--batch", type=int, default=64, help="samples of a step")
    arguments.add_argument("--steps", type=int, default=40, help="steps of one run")
    arguments.add_argument("--repeats", type=int, default=3, help="runs of each")
    arguments.add_argument("--readers", type=int, default=2, help="decoding processes of each")
    arguments.add_argument("--out", type=Path, help="file of the result (JSON); it is also printed")
    options = arguments.parse_args()

    start_own_ray_on_loopback()
    import ray

    ray.init(address="local", num_cpus=max(4, os.cpu_count() or 1), include_dashboard=False, logging_level="ERROR")
    python = environment("open_clip_train", OPEN_CLIP_TRAINING)
    runs: dict[str, list[dict[str, float]]] = {"open_clip": [], "shoplens": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table = export_photos(options.dataset, folder / "photos", options.batch * options.steps)
        save_small_open_clip(python, folder)
        for repeat in range(options.repeats):
            runs["open_clip"].append(train_open_clip(python, folder, table, options, repeat))
            print("open_clip", runs["open_clip"][-1], flush=True)
            runs["shoplens"].append(train_shoplens(folder, options, repeat))
            print("shoplens", runs["shoplens"][-1], flush=True)
    median = {
        name: {key: statistics.median(run[key] for run in repeated) for key in repeated[0]}
        for name, repeated in runs.items()
    }
    ratio = median["shoplens"]["samples_per_second"] / median["open_clip"]["samples_per_second"]
    result = {
        "command": " ".join(["python", *sys.argv]),
        "towers": SMALL_TOWERS,
        "median": median,
        "ratio": round(ratio, 3),
        "runs": runs,
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "load_average": os.getloadavg()},
        "versions": {name: version(name) for name in ("torch", "transformers", "ray")} | {"open_clip": OPEN_CLIP[0]},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def export_photos(dataset: Path, folder: Path, count: int) -> Path:
    """Writes the first `count` photos of the training split as files, and a CSV of `count` rows (file, title).

    A split with fewer photos repeats them. Returns the path of the CSV.
    """
    from shoplens.datasets.format import Dataset
    from shoplens.datasets.samples import Samples

    shop = Dataset(str(dataset))
    titles = shop.texts(("title",))
    samples = Samples.of(shop, ["train"])
    folder.mkdir()
    rows = []
    for sample, product in zip(samples.sample.tolist()[:count], samples.product.tolist(), strict=False):
        file = folder / f"{sample}.jpg"
        file.write_bytes(shop.read_image(sample))
        rows.append([str(file), titles[product]])
    table = folder / "photos.csv"
    with table.open("w", newline="") as out:
        writer = csv.writer(out, delimiter="\t")
        writer.writerow(["filepath", "title"])
        writer.writerows((rows * (count // len(rows) + 1))[:count])
    return table


def train_open_clip(
    python: Path, folder: Path, table: Path, options: argparse.Namespace, repeat: int
) -> dict[str, float]:
    flags = {
        "--model": "towers",
        "--train-data": table,
        "--dataset-type": "csv",
        "--batch-size": options.batch,
        "--epochs": 1,
        "--workers": options.readers,
        "--precision": "amp_bf16" if options.device == "cuda" else "fp32",
        "--device": options.device,
        "--log-every-n-steps": 1,
        "--logs": folder / f"logs-{repeat}",
        "--lr": 1e-4,
        "--warmup": 10,
    }
    command = [str(python), "-c", TRAIN, str(folder), *(str(part) for flag in flags.items() for part in flag)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    )
    steps = [(float(data), float(batch)) for data, batch in STEP.findall(done.stderr + done.stdout)][WARM_UP:]
    if done.returncode or not steps:
        sys.exit(f"open_clip's training failed with status {done.returncode}:\n{done.stderr[-3000:]}")
    seconds = sum(batch for _, batch in steps)
    return {
        "samples_per_second": len(steps) * options.batch / seconds,
        "data_wait_share": sum(data for data, _ in steps) / seconds,
    }


def train_shoplens(folder: Path, options: argparse.Namespace, repeat: int) -> dict[str, float]:
    from shoplens.config import override, read_yaml
    from shoplens.recipes import eclip
    from shoplens.training.ray.trainer import Workers, train

    settings = [
        f"dataset={options.dataset.absolute()}",
        f"model.start_from={folder / 'model'}",
        "arm=clip",
        f"training.batch_size={options.batch}",
        "training.checkpoint_every=100000",
        "training.learning_rates={}",
    ]
    config = override(read_yaml(CONFIG), settings)
    per_epoch = eclip.EclipRecipe.load(override(config, ["training.epochs=1"]), str(CONFIG)).timeline.total
    recipe = eclip.EclipRecipe.load(
        override(config, [f"training.epochs={-(-options.steps // per_epoch)}"]), str(CONFIG)
    )
    workers = Workers(use_gpu=options.device == "cuda", feed_tasks=options.readers)
    _, summary = train(recipe, name=f"run-{repeat}", storage=folder / "runs", workers=workers)
    return {name: summary[f"train/{name}"] for name in ("samples_per_second", "data_wait_share")}


TRAIN = """
import sys, pathlib, open_clip
open_clip.add_model_config(pathlib.Path(sys.argv[1]) / "towers.json")
from open_clip_train.main import main
main(sys.argv[2:])
"""


if __name__ == "__main__":
    main()
