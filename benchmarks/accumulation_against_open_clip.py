"""Exactness of gradients under accumulation: shoplens's gradient cache against open_clip's `--accum-freq`.

    python benchmarks/accumulation_against_open_clip.py [--batch 64] [--streams 1 2 4 8] [--out result.json]

Both start from one checkpoint with random weights and see one batch of random photos and texts, in float32. open_clip's
gradients come from its own training loop, with an optimizer that only saves them. Ours come from
`shoplens.training.gradient_cache`.

Each is compared with its own gradient of the whole batch. The result is the ratio of the gradients of the logit scale,
and the relative error of all other gradients as one vector. Relative errors by parameter would mean nothing: the biases of
attention keys have a gradient of zero, so only rounding is left (1e-9, relative "errors" of 0.03 to 0.3 where these biases
are parameters of their own, as in ours).

Duration at the default size on 2 cores: about 2 minutes (estimate), after the download of open_clip.
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
from peers import OPEN_CLIP, OPEN_CLIP_TRAINING, SMALL_TOWERS, environment, save_small_open_clip
from safetensors.torch import load_file, save_file

CONFIG = Path(__file__).parents[1] / "workloads/configs/eclip_finetune.yaml"
SCALE = "logit_scale"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--batch", type=int, default=64, help="samples of the batch")
    arguments.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of streams")
    arguments.add_argument("--out", type=Path, help="file of the result (JSON); it is also printed")
    options = arguments.parse_args()

    python = environment("open_clip_train", OPEN_CLIP_TRAINING)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_small_open_clip(python, folder)
        save_file(random_batch(options.batch), folder / "batch.safetensors")
        command = [str(python), "-c", OPEN_CLIP_GRADIENTS, str(folder), *map(str, options.streams)]
        subprocess.run(command, check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
        open_clip = {k: load_file(folder / f"gradients-{k}.safetensors") for k in (1, *options.streams)}
        shoplens = shoplens_gradients(folder, options.streams)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "batch": options.batch,
        "open_clip": {k: compare(open_clip[k], open_clip[1]) for k in options.streams},
        "shoplens": {k: compare(shoplens[k], shoplens[1]) for k in options.streams},
        "versions": {"torch": version("torch"), "open_clip": OPEN_CLIP[0]},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def random_batch(n: int) -> dict[str, torch.Tensor]:
    """`pixels` uint8 [n, 3, s, s] and `ids` int64 [n, t]. The end token is the largest id, as open_clip expects."""
    generator = torch.Generator().manual_seed(0)
    size, length, vocabulary = (
        SMALL_TOWERS["vision_cfg"]["image_size"],
        SMALL_TOWERS["text_cfg"]["context_length"],
        SMALL_TOWERS["text_cfg"]["vocab_size"],
    )
    pixels = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)
    ids = torch.randint(1, vocabulary - 2, (n, length), generator=generator)
    ends = torch.randint(2, length, (n, 1), generator=generator)
    place = torch.arange(length)
    ids = torch.where(place < ends, ids, torch.where(place == ends, vocabulary - 1, 0))
    ids[:, 0] = vocabulary - 2
    return {"pixels": pixels, "ids": ids}


def shoplens_gradients(folder: Path, counts: list[int]) -> dict[int, dict[str, torch.Tensor]]:
    """Gradients by parameter, for each number of streams."""
    from shoplens.config import override, read_yaml
    from shoplens.recipes import eclip
    from shoplens.training import gradient_cache

    settings = ["dataset=none", f"model.start_from={folder / 'model'}", "arm=clip"]
    recipe = eclip.EclipRecipe.load(override(read_yaml(CONFIG), settings), str(CONFIG))
    inputs = load_file(folder / "batch.safetensors")
    n = len(inputs["ids"])
    batch = {**inputs, "mask": inputs["ids"] > 0, "catalog": torch.arange(n)}
    gradients = {}
    for count in (1, *counts):
        model = recipe.build().train()
        sizes = dict.fromkeys(recipe.tower_loss.towers, n // count)
        gradient_cache.accumulate(recipe.tower_loss, model, batch, sizes, torch.device("cpu"), contextlib.nullcontext)
        gradients[count] = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return gradients


def compare(gradients: dict[str, torch.Tensor], whole: dict[str, torch.Tensor]) -> dict[str, float]:
    """Gradients under accumulation against those of the whole batch."""
    names = [name for name in whole if name != SCALE]
    accumulated, exact = (torch.cat([of[name].flatten() for name in names]) for of in (gradients, whole))
    ratio, error = gradients[SCALE] / whole[SCALE], (accumulated - exact).norm() / exact.norm()
    return {"scale_gradient_ratio": round(ratio.item(), 5), "error_of_the_others": float(f"{error:.1e}")}


OPEN_CLIP_GRADIENTS = """
import sys, pathlib, types, torch, open_clip
from safetensors.torch import load_file, save_file
from open_clip_train.train import train_one_epoch
folder = pathlib.Path(sys.argv[1])
open_clip.add_model_config(folder / "towers.json")
batch = load_file(folder / "batch.safetensors")
mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
images = (batch["pixels"] / 255 - mean) / std

class SaveGradients(torch.optim.SGD):
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
    optimizer = SaveGradients(model.parameters(), lr=0.0)
    train_one_epoch(model, data, open_clip.ClipLoss(), 0, optimizer, None, None, None, args)
"""


if __name__ == "__main__":
    main()
