"""How far the vectors of open_clip checkpoints are from open_clip's own, once shoplens has taken them over.

    python benchmarks/agree_with_open_clip.py [--out result.json] [--models ViT-B-32 convnext_base ...]

open_clip has a virtual environment of its own, which sees this environment's torch. There it makes models with
random weights, saves them as it does for the hub, and encodes 64 texts and 64 photos with its own tokenizer and
transform. Here the same folders are read by shoplens, packaged, loaded back, and the largest difference of a
number in the unit vectors is reported. No network beyond the package index.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

MODELS = ("ViT-B-32", "ViT-B-32-quickgelu", "convnext_base", "ViT-B-16-SigLIP")
SHOP = "원피스 빨간 머그컵 350ml Black boots, size 240 it's NEW! 운동화 (2-pack) ★특가★ cotton_blend denim 무료배송"
WORDS = SHOP.split()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, help="where to write the result (JSON); the screen if left out")
    arguments.add_argument("--models", nargs="+", default=MODELS, help="names of open_clip's architectures")
    arguments.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.peer:
        as_open_clip(options.peer, options.models[0])
        return
    from peers import OPEN_CLIP, environment

    python = environment("open_clip", OPEN_CLIP)
    found = {}
    for name in options.models:
        with tempfile.TemporaryDirectory() as scratch:
            inputs(Path(scratch))
            peer = [str(python), __file__, "--peer", scratch, "--models", name]
            subprocess.run(peer, check=True, stdout=subprocess.DEVNULL)
            found[name] = compare(Path(scratch))
            print(name, found[name], file=sys.stderr, flush=True)
    result = {
        "command": "python " + " ".join(sys.argv),
        "machine": f"{platform.machine()}, {platform.system()}, CPU",
        "versions": {name: version(name) for name in ("torch", "transformers", "timm", "tokenizers", "Pillow")}
        | {"python": platform.python_version(), "open_clip": OPEN_CLIP[0]},
        "largest_difference": found,
    }
    text = json.dumps(result, indent=1)
    options.out.write_text(text + "\n") if options.out else print(text)


def inputs(folder: Path) -> None:
    """64 texts, and 64 photos of many sizes and aspect ratios."""
    draw, rng = random.Random(0), np.random.default_rng(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 60 if number % 16 == 0 else 9))) for number in range(64)]
    (folder / "texts.json").write_text(json.dumps(texts))
    for number in range(64):
        width, height = (int(side) for side in rng.integers(90, 900, 2))
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize((width, height))
        noisy = np.asarray(coarse) + rng.normal(0, 12, (height, width, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")


def load_inputs(folder: Path) -> tuple[list[str], list[Image.Image]]:
    photos = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]
    return json.loads((folder / "texts.json").read_text()), photos


def compare(folder: Path) -> dict[str, float]:
    from shoplens.nn.dual_encoder import DualEncoder
    from shoplens.packages.embedder import Embedder
    from shoplens.packages.pretrained import read

    texts, photos = load_inputs(folder)
    found = read(str(folder / "model"))
    model = DualEncoder(found.model, found.preprocessing, found.tokenizer.get_vocab_size(), pretrained=False)
    model.start(found.weights())
    Embedder("peer", found.model, found.preprocessing, found.tokenizer, model).save(folder / "package", "", {})
    package = Embedder.load(folder / "package")
    theirs = np.load(folder / "vectors.npz")
    image = package.encode_images(np.stack([package.preprocess(photo) for photo in photos]), batch_size=16)
    text = package.encode_texts(texts, batch_size=16)
    return {
        "image": float(np.abs(image - theirs["image"]).max()),
        "text": float(np.abs(text - theirs["text"]).max()),
        "logit_scale": abs(package.model.logit_scale.item() - float(theirs["logit_scale"])),
        "distinct_images": distinct(theirs["image"]),
        "distinct_texts": distinct(theirs["text"]),
    }


def distinct(vectors: np.ndarray) -> int:
    """Vectors that no other comes within 1e-3 of in every number: what agreement is worth."""
    apart = np.abs(vectors[:, None] - vectors[None]).max(-1) > 1e-3
    return int((apart.sum(1) == len(vectors) - 1).sum())


# --- in open_clip's environment ---------------------------------------------------------------------------


def as_open_clip(folder: Path, name: str) -> None:
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf
    from open_clip.tokenizer import HFTokenizer

    torch.manual_seed(0)
    texts, photos = load_inputs(folder)
    config = open_clip.get_model_config(name)
    model, _, transform = open_clip.create_model_and_transforms(name, pretrained=None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    tokenizer: Any
    if "SigLIP" in name:  # its vocabulary lies on the hub: a small one in its place, cleaned as it says
        t5_like(config["text_cfg"]["context_length"]).save_pretrained(folder / "tokenizer")
        options = config["text_cfg"]["tokenizer_kwargs"]
        length = config["text_cfg"]["context_length"]
        tokenizer = HFTokenizer(str(folder / "tokenizer"), context_length=length, **options)
        saved = tokenizer
    else:
        tokenizer = open_clip.get_tokenizer(name)
        saved = default_vocabulary(tokenizer)
    save_for_hf(model, saved, config, str(folder / "model"), safe_serialization=True)
    model.eval()
    with torch.no_grad():
        text = model.encode_text(tokenizer(texts), normalize=True).numpy()
        batches = [torch.stack([transform(photo) for photo in photos[at : at + 16]]) for at in range(0, 64, 16)]
        image = torch.cat([model.encode_image(batch, normalize=True) for batch in batches]).numpy()
    np.savez(folder / "vectors.npz", image=image, text=text, logit_scale=model.logit_scale.item())


def default_vocabulary(tokenizer: Any) -> Any:
    """open_clip's default vocabulary as transformers keeps it: what a checkpoint has beside its weights."""
    from transformers import CLIPTokenizer

    vocabulary = dict(tokenizer.encoder)
    start, end = vocabulary.pop("<start_of_text>"), vocabulary.pop("<end_of_text>")
    vocabulary |= {"<|startoftext|>": start, "<|endoftext|>": end}
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
    return CLIPTokenizer(vocabulary, merges, model_max_length=77)


def t5_like(longest: int) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator([word.lower() for word in WORDS] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>", model_max_length=longest
    )


if __name__ == "__main__":
    main()
