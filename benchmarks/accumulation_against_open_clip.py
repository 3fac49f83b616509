"""Gradients of a batch encoded in streams against the gradients of the same batch at once: open_clip's and ours.

    python benchmarks/accumulation_against_open_clip.py [--batch 64] [--streams 1 2 4 8] [--out result.json]

Both start from one checkpoint with random weights and see one batch of random photos and texts in float32.
open_clip's figures come from its own training loop (`--accum-freq`), whose optimizer here only writes down the
gradients that it is given; ours from `training.streams`. Each is compared with its own gradient of the whole batch:
the ratio of the gradients of the logit scale, and the relative error of the gradient of everything else, as one
vector: parameter by parameter it would say nothing, since the attention keys' biases have a gradient of zero, of
which only rounding is left (1e-9, and relative "errors" of 0.03 to 0.3 where the biases stand apart, as in ours).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
from peers import OPEN_CLIP, environment
from safetensors.torch import load_file, save_file
from train_against_open_clip import CONFIG, SAVE, TOWERS

SCALE = "logit_scale"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8])
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()

    python = environment("open_clip_train", (*OPEN_CLIP, "braceexpand"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "towers.json").write_text(json.dumps(TOWERS))
        run = {"check": True, "env": {**os.environ, "CUDA_VISIBLE_DEVICES": ""}}
        subprocess.run([str(python), "-c", SAVE, str(folder)], **run, capture_output=True)
        save_file(drawn(options.batch), folder / "batch.safetensors")
        subprocess.run([str(python), "-c", THEIRS, str(folder), *map(str, options.streams)], **run)
        theirs = {k: load_file(folder / f"gradients-{k}.safetensors") for k in (1, *options.streams)}
        mine = ours(folder, options.streams)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "batch": options.batch,
        "open_clip": {k: compared(theirs[k], theirs[1]) for k in options.streams},
        "shoplens": {k: compared(mine[k], mine[1]) for k in options.streams},
        "versions": {"torch": version("torch"), "open_clip": OPEN_CLIP[0]},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def drawn(n: int) -> dict[str, torch.Tensor]:
    """Photos uint8, token ids with the end token, which open_clip finds as the largest, somewhere in them."""
    generator = torch.Generator().manual_seed(0)
    size, length, vocabulary = (
        TOWERS["vision_cfg"]["image_size"],
        TOWERS["text_cfg"]["context_length"],
        TOWERS["text_cfg"]["vocab_size"],
    )
    pixels = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)
    ids = torch.randint(1, vocabulary - 2, (n, length), generator=generator)
    ends = torch.randint(2, length, (n, 1), generator=generator)
    place = torch.arange(length)
    ids = torch.where(place < ends, ids, torch.where(place == ends, vocabulary - 1, 0))
    ids[:, 0] = vocabulary - 2
    return {"pixels": pixels, "ids": ids}


def ours(folder: Path, counts: list[int]) -> dict[int, dict[str, torch.Tensor]]:
    from shoplens.config import override, read_yaml
    from shoplens.recipes import eclip
    from shoplens.training import gradient_cache as streams

    settings = ["dataset=none", f"model.start_from={folder / 'model'}", "arm=clip"]
    recipe = eclip.EclipRecipe.load(override(read_yaml(CONFIG), settings), str(CONFIG))
    drawn = load_file(folder / "batch.safetensors")
    n = len(drawn["ids"])
    batch = {**drawn, "mask": drawn["ids"] > 0, "catalog": torch.arange(n)}
    found = {}
    for count in (1, *counts):
        model = recipe.build().train()
        sizes = dict.fromkeys(recipe.towers, n // count)
        streams.accumulate(recipe, model, batch, sizes, torch.device("cpu"), contextlib.nullcontext)
        found[count] = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return found


def compared(gradients: dict[str, torch.Tensor], whole: dict[str, torch.Tensor]) -> dict[str, float]:
    names = [name for name in whole if name != SCALE]
    theirs, at_once = (torch.cat([of[name].flatten() for name in names]) for of in (gradients, whole))
    ratio, error = gradients[SCALE] / whole[SCALE], (theirs - at_once).norm() / at_once.norm()
    return {"scale_gradient_ratio": round(ratio.item(), 5), "error_of_the_others": float(f"{error:.1e}")}


THEIRS = """
import sys, pathlib, types, torch, open_clip
from safetensors.torch import load_file, save_file
from open_clip_train.train import train_one_epoch
folder = pathlib.Path(sys.argv[1])
open_clip.add_model_config(folder / "towers.json")
batch = load_file(folder / "batch.safetensors")
mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
images = (batch["pixels"] / 255 - mean) / std

class WrittenDown(torch.optim.SGD):
    def step(self):
        gradients = {name: value.grad.contiguous() for name, value in model.named_parameters() if value.grad is not None}
        save_file(gradients, folder / f"gradients-{count}.safetensors")

class Parts(list):
    num_samples = len(images)

for count in {1, *map(int, sys.argv[2:])}:
    torch.manual_seed(0)
    model = open_clip.create_model("towers", pretrained=None, output_dict=True)
    parts = Parts(zip(images.chunk(count), batch["ids"].chunk(count)))
    parts.num_batches = count
    data = {"train": types.SimpleNamespace(dataloader=parts, set_epoch=lambda epoch: None)}
    args = types.SimpleNamespace(
        device="cpu", precision="fp32", distill=False, accum_freq=count, skip_scheduler=True, grad_clip_norm=None,
        horovod=False, rank=1, local_rank=1, log_local=False, world_size=1, batch_size=len(images) // count,
        log_every_n_steps=10**9, wandb=False,
    )
    optimizer = WrittenDown(model.parameters(), lr=0.0)
    train_one_epoch(model, data, open_clip.ClipLoss(), 0, optimizer, None, None, None, args)
"""


if __name__ == "__main__":
    main()
