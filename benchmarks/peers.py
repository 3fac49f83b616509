"""Virtual environments for the libraries that benchmarks compare with, and a small open_clip checkpoint.

The environments share this environment's packages, torch among them. They lie in `.shoplens/peers`, or in the folder that
the variable SHOPLENS_PEERS names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ENVIRONMENTS = Path(os.environ.get("SHOPLENS_PEERS", Path(__file__).parents[1] / ".shoplens/peers"))

OPEN_CLIP = ("open_clip_torch==3.3.0", "ftfy", "regex", "wcwidth")
OPEN_CLIP_TRAINING = (*OPEN_CLIP, "braceexpand")
INFINITY = (
    "infinity-emb==0.0.78",
    "transformers==4.57.6",
    "huggingface_hub==0.36.2",
    "tokenizers==0.22.2",
    "sentence-transformers==3.4.1",
    "typer==0.12.5",
    "click==8.1.8",
    "orjson==3.13.0",
    "prometheus-fastapi-instrumentator==8.1.0",
    "posthog==7.91.1",
    "backoff==2.2.1",
    "distro==1.9.0",
    *OPEN_CLIP,
)
"""infinity-emb with the libraries that it needs in other versions than shoplens. open_clip brings CLIP's vocabulary."""
SMALL_TOWERS = {
    "embed_dim": 192,
    "vision_cfg": {"image_size": 64, "patch_size": 8, "width": 192, "layers": 6, "head_width": 64},
    "text_cfg": {"context_length": 48, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 3},
}
"""open_clip's configuration of a small dual encoder."""


def environment(name: str, packages: tuple[str, ...]) -> Path:
    """The Python of an environment with `packages`, made once. Their dependencies are not installed but shared."""
    folder = ENVIRONMENTS / name
    python = folder / "bin/python"
    if not (folder / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", *packages]
        subprocess.run(install, check=True)
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (folder / ".ready").touch()
    return python


def save_small_open_clip(python: Path, folder: Path) -> None:
    """Writes `folder/towers.json` (`SMALL_TOWERS`) and `folder/model`, an open_clip checkpoint with random weights.

    python   that of an environment with open_clip
    """
    (folder / "towers.json").write_text(json.dumps(SMALL_TOWERS))
    subprocess.run([str(python), "-c", _SAVE, str(folder)], check=True, capture_output=True)


_SAVE = """
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
