"""The shards of a curation, read by the training loader of open_clip.

    python benchmarks/shards_in_open_clip.py OUT [--records 300]

Curates synthetic records with `shards.captions`, and reads the shards with `get_wds_dataset` of open_clip 3.3.0, which lives
in an environment of its own. Every photo must come out once, with its text. open_clip's later option to read captions from
the JSON is in no release yet.

Duration at the default size on 2 cores: a minute.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from curating import Processes, raw_records, settings
from peers import OPEN_CLIP_TRAINING, environment

from shoplens.curation.pipeline.curate import curate
from shoplens.curation.pipeline.learned import Models

_READ = """
import json, sys
from types import SimpleNamespace
from open_clip_train.data import get_wds_dataset
shards, n = sys.argv[1], int(sys.argv[2])
args = SimpleNamespace(train_data=None, val_data=shards, val_num_samples=n, batch_size=32, workers=1, world_size=1)
data = get_wds_dataset(args, lambda image: image.size[0], is_train=False, tokenizer=lambda text: [text])
texts = [text for _, batch in data.dataloader for text in batch]
print(json.dumps(texts))
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--records", type=int, default=300)
    chosen = arguments.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    raw = raw_records(chosen.out / f"raw-{chosen.records}", records=chosen.records)
    shards = {"captions": True, "records": 50, "val": 0, "test": 0}
    dataset = curate(
        settings(raw, chosen.out / "curated", shards=shards), {}, Models, Processes(2), overwrite=True
    ).dataset
    best: dict[str, tuple[int, str]] = {}
    for row in dataset.table("image_texts").to_pylist():
        rank = (row["count"] if row["source"] == "query" else -1, row["text"])
        if row["image_id"] not in best or rank[0] > best[row["image_id"]][0]:
            best[row["image_id"]] = rank
    last = sum(name.startswith("shards/train-") for name in dataset.manifest.files) - 1
    pattern = f"{dataset.path}/shards/train-{{000..{last:03d}}}.tar"
    python = environment("open_clip_train", OPEN_CLIP_TRAINING)
    ran = subprocess.run(
        [str(python), "-c", _READ, pattern, str(len(dataset.images))], capture_output=True, text=True, check=True
    )
    texts = json.loads(ran.stdout.splitlines()[-1])
    same = sorted(texts) == sorted(text for _, text in best.values())
    print(f"{len(dataset.images)} records, {len(texts)} read by open_clip, texts equal: {same}")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
