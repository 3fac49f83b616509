"""Training speed against open_clip's own training program: same towers, weights, photos, batch and cores.

    python benchmarks/train_against_open_clip.py DATASET [--device cuda] [--batch 64] [--steps 40] [--out result.json]

open_clip makes a small model with random weights and saves it as it does for the hub; its training program reads
the photos through a CSV with its own workers. shoplens starts from that checkpoint and is fed by Ray Data, decoding
in the loop. The two take turns. Rates are samples per second from the third step on; the share of that time
spent waiting for data is reported for both.
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

from peers import OPEN_CLIP, environment

from shoplens.cluster.loopback import start_own_ray_on_loopback

CONFIG = Path(__file__).parents[1] / "workloads/configs/eclip_finetune.yaml"
TOWERS = {
    "embed_dim": 192,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 192, "layers": 6, "head_width": 64},
    "text_cfg": {"context_length": 48, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 3},
}
STEP = re.compile(r"Data \(t\): ([\d.]+) Batch \(t\): ([\d.]+)")
WARM_UP = 2


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("dataset", type=Path)
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--steps", type=int, default=40)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--readers", type=int, default=2, help="processes that decode, of both")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()

    start_own_ray_on_loopback()
    import ray

    ray.init(address="local", num_cpus=max(4, os.cpu_count() or 1), include_dashboard=False, logging_level="ERROR")
    python = environment("open_clip_train", (*OPEN_CLIP, "braceexpand"))
    found: dict[str, list[dict[str, float]]] = {"open_clip": [], "shoplens": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table = photos(options.dataset, folder / "photos", options.batch * options.steps)
        (folder / "towers.json").write_text(json.dumps(TOWERS))
        subprocess.run([str(python), "-c", SAVE, str(folder)], check=True, capture_output=True)
        for repeat in range(options.repeats):
            found["open_clip"].append(theirs(python, folder, table, options, repeat))
            print("open_clip", found["open_clip"][-1], flush=True)
            found["shoplens"].append(ours(folder, options, repeat))
            print("shoplens", found["shoplens"][-1], flush=True)
    median = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
    }
    ratio = median["shoplens"]["samples_per_second"] / median["open_clip"]["samples_per_second"]
    result = {
        "command": " ".join(["python", *sys.argv]),
        "towers": TOWERS,
        "median": median,
        "ratio": round(ratio, 3),
        "runs": found,
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "load_average": os.getloadavg()},
        "versions": {name: version(name) for name in ("torch", "transformers", "ray")} | {"open_clip": OPEN_CLIP[0]},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def photos(dataset: Path, folder: Path, count: int) -> Path:
    """The first photos of the training split as files, repeated until there are `count`, in a CSV."""
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


def theirs(python: Path, folder: Path, table: Path, options: argparse.Namespace, repeat: int) -> dict[str, float]:
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
        sys.exit(f"open_clip did not train:\n{done.stderr[-3000:]}")
    seconds = sum(batch for _, batch in steps)
    return {
        "samples_per_second": len(steps) * options.batch / seconds,
        "data_wait_share": sum(data for data, _ in steps) / seconds,
    }


def ours(folder: Path, options: argparse.Namespace, repeat: int) -> dict[str, float]:
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


SAVE = """
import sys, json, pathlib, torch, open_clip
from open_clip.push_to_hf_hub import save_for_hf
from transformers import CLIPTokenizer
folder = pathlib.Path(sys.argv[1])
open_clip.add_model_config(folder / "towers.json")
torch.manual_seed(0)
model = open_clip.create_model("towers", pretrained=None)
tokenizer = open_clip.get_tokenizer("towers")
vocabulary = dict(tokenizer.encoder)
start, end = vocabulary.pop("<start_of_text>"), vocabulary.pop("<end_of_text>")
vocabulary |= {"<|startoftext|>": start, "<|endoftext|>": end}
merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
saved = CLIPTokenizer(vocabulary, merges, model_max_length=48)
save_for_hf(model, saved, open_clip.get_model_config("towers"), str(folder / "model"), safe_serialization=True)
"""
TRAIN = """
import sys, pathlib, open_clip
open_clip.add_model_config(pathlib.Path(sys.argv[1]) / "towers.json")
from open_clip_train.main import main
main(sys.argv[2:])
"""


if __name__ == "__main__":
    main()
