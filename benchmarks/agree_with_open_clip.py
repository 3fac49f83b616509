"""Difference between shoplens's and open_clip's vectors of the same open_clip checkpoints.

    python benchmarks/agree_with_open_clip.py [--out result.json] [--models ViT-B-32 convnext_base ...]

open_clip runs in a virtual environment of its own with this environment's torch. It makes models with random weights,
saves them in its hub format, and encodes 64 texts and 64 photos with its own tokenizer and transform. shoplens reads the
same folders, writes and loads a package, and encodes the same inputs. The result is the largest absolute difference of
an element of the unit vectors. The network is used for the package index only.

Duration at the default size on 2 cores: about 5 minutes (estimate), after the download of open_clip.
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
    arguments.add_argument("--out", type=Path, help="file of the result (JSON); without it, the result is printed")
    arguments.add_argument("--models", nargs="+", default=MODELS, help="names of open_clip architectures")
    arguments.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.peer:
        as_open_clip(options.peer, options.models[0])
        return
    from peers import OPEN_CLIP, environment

    python = environment("open_clip", OPEN_CLIP)
    differences = {}
    for name in options.models:
        with tempfile.TemporaryDirectory() as scratch:
            write_inputs(Path(scratch))
            peer = [str(python), __file__, "--peer", scratch, "--models", name]
            subprocess.run(peer, check=True, stdout=subprocess.DEVNULL)
            differences[name] = compare(Path(scratch))
            print(name, differences[name], file=sys.stderr, flush=True)
    result = {
        "command": "python " + " ".join(sys.argv),
        "machine": f"{platform.machine()}, {platform.system()}, CPU",
        "versions": {name: version(name) for name in ("torch", "transformers", "timm", "tokenizers", "Pillow")}
        | {"python": platform.python_version(), "open_clip": OPEN_CLIP[0]},
        "largest_difference": differences,
    }
    text = json.dumps(result, indent=1)
    options.out.write_text(text + "\n") if options.out else print(text)


def write_inputs(folder: Path) -> None:
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
    """Largest differences of vectors and logit scale, and the numbers of inputs with a distinct vector."""
    from shoplens.nn.dual_encoder import DualEncoder
    from shoplens.packages.embedder import Embedder
    from shoplens.packages.pretrained import read

    texts, photos = load_inputs(folder)
    source = read(str(folder / "model"))
    model = DualEncoder(source.model, source.preprocessing, source.tokenizer.get_vocab_size(), pretrained=False)
    model.start(source.weights())
    Embedder("peer", source.model, source.preprocessing, source.tokenizer, model).save(folder / "package", "", {})
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
    """Number of vectors that differ from every other by more than 1e-3 in some element.

    Agreement means little if the vectors are all alike.
    """
    differs = np.abs(vectors[:, None] - vectors[None]).max(-1) > 1e-3
    return int((differs.sum(1) == len(vectors) - 1).sum())


def as_open_clip(folder: Path, name: str) -> None:
    """Saves an open_clip model and its vectors of the inputs; runs in open_clip's environment."""
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
    if "SigLIP" in name:  # its vocabulary is on the hub only; a small one with the same text cleaning stands in
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
    """open_clip's default vocabulary as a transformers tokenizer, the form that a checkpoint contains."""
    from transformers import CLIPTokenizer

    vocabulary = dict(tokenizer.encoder)
    start, end = vocabulary.pop("<start_of_text>"), vocabulary.pop("<end_of_text>")
    vocabulary |= {"<|startoftext|>": start, "<|endoftext|>": end}
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
    return CLIPTokenizer(vocabulary, merges, model_max_length=77)


def t5_like(longest: int) -> Any:
    """A small tokenizer of T5's kind, trained on WORDS, that cuts at `longest` tokens."""
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
