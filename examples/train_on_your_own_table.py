"""Trains on a table of your own products: draws a small shop, imports its table, prints the command that trains.

    python examples/train_on_your_own_table.py data/own
    python examples/train_on_your_own_table.py data/own --train     # on the cluster that `shoplens up` started

Replace `draw_shop` by your own table. `id`, `title` and `images` are enough; the other columns make more possible.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
from pathlib import Path

from PIL import Image, ImageDraw

COLOURS = {"red": "#c0392b", "blue": "#2d6cc0", "green": "#3c8a4e", "yellow": "#d9a400"}
SHAPES = {"Mug": "ellipse", "Box": "rectangle", "Bowl": "chord"}
SIZES = (1.0, 0.8, 0.6, 0.9)
"""Each seller photographs a product at another size."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the table and the dataset")
    parser.add_argument("--train", action="store_true", help="submit the training job")
    given = parser.parse_args()
    table = draw_shop(given.out / "table")
    dataset = (given.out / "dataset").absolute()
    run(["shoplens", "dataset", "import", "jsonl", str(table), str(dataset)])
    run(["shoplens", "dataset", "show", str(dataset)])
    command = training_command(dataset)
    if given.train:
        run(command)
    else:
        print(f"\nnext: {shlex.join(command)}")


def draw_shop(folder: Path) -> Path:
    """A row for each offer of twelve products: two sellers in `train`, one in `val`, one in `test`."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    rows = []
    for shape in SHAPES:
        for colour in COLOURS:
            for seller, split in enumerate(("train", "train", "val", "test")):
                name = f"{shape}-{colour}-{seller}".lower()
                draw(shape, colour, SIZES[seller]).save(folder / "photos" / f"{name}.jpg")
                rows.append(
                    {
                        "id": name,
                        "catalog_id": f"{shape}-{colour}".lower(),
                        "title": f"{colour} {shape}, seller {seller}",
                        "images": [f"photos/{name}.jpg"],
                        "category_path": ["Kitchen", shape],
                        "attributes": {"colour": colour},
                        "price": 10 + seller,
                        "split": split,
                    }
                )
    table = folder / "products.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return table


def draw(shape: str, colour: str, size: float) -> Image.Image:
    photo = Image.new("RGB", (96, 96), "white")
    edge = 48 - 40 * size
    box = [edge, edge, 96 - edge, 96 - edge]
    pencil = ImageDraw.Draw(photo)
    if SHAPES[shape] == "chord":
        pencil.chord(box, 0, 180, fill=COLOURS[colour])
    else:
        getattr(pencil, SHAPES[shape])(box, fill=COLOURS[colour])
    return photo


def training_command(dataset: Path) -> list[str]:
    """Settings for a dataset this small; leave them out for a real one."""
    settings = [
        "name=own",
        "training.epochs=2",
        "training.batch_size=8",
        "training.warmup_steps=2",
        "attribute_heads=0",
    ]
    job = ["python", "-m", "workloads.train", "workloads/configs/eclip.yaml", f"dataset={dataset}", *settings]
    return ["ray", "job", "submit", "--working-dir", ".", "--", *job]


def run(command: list[str]) -> None:
    print(f"\n$ {shlex.join(command)}", flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
