"""Training inside `ray job submit` against the bare training loop, and where a job's time goes.

    python benchmarks/job_against_loop.py OUT [--rounds 2] [--epochs 4] [--products 2000]

The same recipe, seed and shop, on as many threads: once in a process of its own that runs `training.loop` on batches of a
torch DataLoader (`bare`), once as a job on a platform of its own, with its endpoints and MLflow (`job`). Rounds alternate. Two
recipes: `vectors` (eclip_locked.yaml, a locked trunk's vectors computed once) and `photos` (eclip.yaml, every photo
decoded again). Samples per second count from the second step to the last.

The second table has the parts of the jobs, from the command to the registered version; the jobs record them in MLflow
(`seconds/...`). OUT receives `job_against_loop.json` and `.md`.

Duration at the default size on 2 cores: about 13 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from own_platform import own_platform
from small_models import CONFIGS

if TYPE_CHECKING:
    from shoplens.cluster.file import Cluster

CONFIG_OF = {"vectors": "eclip_locked", "photos": "eclip"}
RUN = re.compile(r"^run (\w+):", re.MULTILINE)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path, metavar="OUT", help="folder of the result and of the shop")
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--epochs", type=int, default=4)
    arguments.add_argument("--products", type=int, default=2000)
    arguments.add_argument("--recipes", nargs="+", choices=CONFIG_OF, default=list(CONFIG_OF))
    arguments.add_argument("--bare", nargs="+", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.bare:
        print(json.dumps(bare(*options.bare)))
        return
    from shoplens.synthetic import SyntheticShop, synthesize

    options.out.mkdir(parents=True, exist_ok=True)
    shop = options.out.absolute() / f"shop-{options.products}"
    if not (shop / "manifest.json").exists():
        synthesize(shop, SyntheticShop(products=options.products, seed=7))
    settings = [f"dataset={shop}", f"training.epochs={options.epochs}"]
    found: dict[str, dict[str, list[Any]]] = {one: {"bare": [], "job": []} for one in options.recipes}
    with tempfile.TemporaryDirectory() as scratch, own_platform(Path(scratch), "job-benchmark") as cluster:
        for number in range(options.rounds):
            for one in options.recipes:
                own = [*settings, f"seed={number}"]  # another seed, so that no trunk vectors are there already
                found[one]["bare"].append(bare_in_a_process(CONFIG_OF[one], own, scratch))
                found[one]["job"].append(job(cluster, CONFIG_OF[one], own))
                print(one, {side: runs[-1] for side, runs in found[one].items()}, flush=True)
    result = {"products": options.products, "epochs": options.epochs, "cores": os.cpu_count(), "runs": found}
    (options.out / "job_against_loop.json").write_text(json.dumps(result, indent=1))
    text = markdown(found)
    (options.out / "job_against_loop.md").write_text(f"# Training jobs against the bare loop\n\n{text}")
    print(text)


def bare_in_a_process(config: str, settings: list[str], scratch: str) -> dict[str, float]:
    command = [sys.executable, __file__, scratch, "--bare", config, scratch, *settings]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def bare(config: str, scratch: str, *settings: str) -> dict[str, float]:
    import torch

    from shoplens import recipes
    from shoplens.config import override, read_yaml
    from shoplens.training import loop, trunk_vectors
    from shoplens.training.batches import MicroBatches

    torch.set_num_threads(os.cpu_count() or 1)
    file = str(CONFIGS / f"{config}.yaml")
    tree = override(read_yaml(file), list(settings))
    recipe: Any = recipes.find(tree["recipe"]).load(tree, file)
    rates = {}
    if recipe.config.photo_views is not None:
        began = time.monotonic()
        recipe.trunk_file = trunk_vectors.compute(recipe, Path(scratch) / "bare_vectors")
        rates["trunk_seconds"] = time.monotonic() - began
    batches = MicroBatches(recipe, Path(scratch))
    _, summary = loop.train(
        recipe, lambda start, total: batches.ahead(start, total, prefetch=recipe.training.prefetch), Path(scratch)
    )
    return {**rates, "samples_per_second": summary["train/samples_per_second"]}


def job(cluster: Cluster, config: str, settings: list[str]) -> dict[str, Any]:
    from ray.job_submission import JobSubmissionClient

    from shoplens.registry.runs import client

    submission = f"benchmark-{time.time_ns()}"
    command = [
        *("ray", "job", "submit", "--address", cluster.dashboard, "--submission-id", submission, "--working-dir", "."),
        *("--", "python", "-m", "workloads.train", f"workloads/configs/{config}.yaml", *settings),
    ]
    began = time.time()
    done = subprocess.run(command, cwd=CONFIGS.parents[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    ended = time.time()
    found = RUN.search(done.stdout)
    if done.returncode or found is None:
        sys.exit(f"the job failed:\n{done.stdout[-3000:]}")
    run = client(cluster.mlflow_uri).get_run(found[1])
    metrics = run.data.metrics
    parts = {name.removeprefix("seconds/"): value for name, value in metrics.items() if name.startswith("seconds/")}
    info = JobSubmissionClient(cluster.dashboard).get_job_info(submission)
    submitted = info.start_time / 1000
    before_run = sum(parts[part] for part in ("imports", "connection", "recipe_and_run"))
    entered = run.info.start_time / 1000 - before_run
    return {
        "samples_per_second": metrics["summary/samples_per_second"],
        "data_wait_share": metrics["summary/data_wait_share"],
        "seconds": ended - began,
        "parts": {
            "command": submitted - began,
            "start of the job": entered - submitted,
            **parts,
            "end of the job": ended - entered - sum(parts.values()),
        },
    }


def markdown(found: dict[str, dict[str, list[Any]]]) -> str:
    lines = ["| recipe | bare, samples/s | job, samples/s | job / bare |", "| --- | --- | --- | --- |"]
    for recipe, sides in found.items():
        rates = {side: [run["samples_per_second"] for run in runs] for side, runs in sides.items()}
        ratios = [job / alone for job, alone in zip(rates["job"], rates["bare"], strict=True)]
        lines.append(
            f"| {recipe} | {statistics.median(rates['bare']):.0f} | {statistics.median(rates['job']):.0f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    parts = {recipe: [run["parts"] for run in sides["job"]] for recipe, sides in found.items()}
    lines += ["", f"| part of the job, seconds | {' | '.join(parts)} |", f"| --- |{' --- |' * len(parts)}"]
    for part in dict.fromkeys(part for runs in parts.values() for run in runs for part in run):
        cells = [f"{statistics.median(run.get(part, 0.0) for run in runs):.1f}" for runs in parts.values()]
        lines.append(f"| {part.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
