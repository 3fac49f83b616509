"""Trains, indexes and promotes every recipe of the plug-in by the commands that a user types, in one Ray job.

python tests/plugin/job.py DATASET
"""

from __future__ import annotations

import sys
from pathlib import Path

from shoplens import cli
from workloads import build_index, train

CONFIGS = Path(__file__).parent / "configs"
INDEXED = ("titles", "teacher", "composed")


def main(dataset: str) -> None:
    for config in sorted(CONFIGS.glob("*.yaml")):
        name, settings = config.stem, [f"dataset={dataset}"]
        train.main(str(config), settings)
        if name in INDEXED:
            build_index.main(settings, model=f"{name}@candidate")
        cli.app(["promote", name, "1", "--alias", "champion", "--dataset", dataset], standalone_mode=False)


if __name__ == "__main__":
    main(sys.argv[1])
