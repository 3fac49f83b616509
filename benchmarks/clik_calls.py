"""Cost of CLIK's training step, evaluation and ranking endpoint; the first two against the reference implementation.

    python benchmarks/clik_calls.py OUT.json [--shop DIR] [--endpoint http://127.0.0.1:8000] [key=value ...]

- `step`: time of a training step (forward and backward) whose lists are encoded in one call of each tower, over the time of
  the same step with one call a list, as in the reference. Both must give the same scores and gradients; the largest
  differences are reported.
- `validation` (with --shop): photos that the reference encodes to validate on the shop's `val` topics, over those that
  shoplens encodes. The reference encodes a matching batch and the candidates again for every topic.
- `rank` (with --endpoint): milliseconds of POST /v1/rank with 20 uploaded photos, as 50th and 95th percentile of 200 calls,
  one at a time.

Duration of `step` at the default size on 2 cores: a few minutes (estimate).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

CONFIGS = Path(__file__).parents[1] / "workloads/configs"
REFERENCE_MATCHING = 343
"""Pairs that the reference encodes for the matching loss of every validation step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="file of the result (JSON)")
    parser.add_argument("--shop", help="folder of a dataset with topics and a click log")
    parser.add_argument("--endpoint", help="address of a running gateway")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each kind; the median ratio is reported")
    parser.add_argument("--device", default="cpu", help="torch device of the step")
    options, settings = parser.parse_known_args()
    result: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), "step": step(settings, options)}
    if options.shop:
        result["validation"] = validation(options.shop, settings)
    if options.endpoint:
        result["rank"] = latency(options.endpoint)
    result["machine"] = {"cpus": os.cpu_count(), "platform": platform.platform(), "torch": torch.__version__}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def step(settings: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Differences and time ratio of a step with one call of each tower and a step with a call a list."""
    from shoplens.config import override, read_yaml, validate
    from shoplens.datasets.preprocessing import Preprocessing
    from shoplens.nn.clik import Clik, ClikConfig
    from shoplens.recipes.clik import TopicBatchConfig

    towers = {name: read_yaml(str(CONFIGS / "eclip.yaml"))[name] for name in ("model", "preprocessing")}
    tree = override({**read_yaml(str(CONFIGS / "clik.yaml")), **towers}, settings)
    batches = validate(TopicBatchConfig, tree["batches"], "batches")
    preprocessing = validate(Preprocessing, tree["preprocessing"], "preprocessing")
    config = validate(ClikConfig, tree["model"], "model")
    torch.manual_seed(0)
    model = Clik(config, preprocessing, 6000).to(options.device).train()
    m, g, k, tokens = batches.matching, batches.groups, batches.candidates, 32
    draw = np.random.default_rng(0)
    whole = {
        "pixels": draw.integers(256, size=(m + g * k, 3, preprocessing.size, preprocessing.size), dtype=np.uint8),
        "ids": draw.integers(5, 6000, size=(m + g, tokens)),
        "mask": np.ones((m + g, tokens), np.int64),
        "types": np.zeros((m + g, tokens), np.int64),
    }
    batch = {name: torch.tensor(array, device=options.device) for name, array in whole.items()}

    def one_call() -> torch.Tensor:
        photos = model.encode_image(batch["pixels"])
        texts = model.encode_text(batch["ids"], batch["mask"], batch["types"])
        return scores(photos[:m], texts[:m], texts[m:], photos[m:].unflatten(0, (g, k)))

    def a_call_a_list() -> torch.Tensor:
        photos = model.encode_image(batch["pixels"][:m])
        texts = model.encode_text(*(batch[name][:m] for name in ("ids", "mask", "types")))
        lists = [model.encode_image(part) for part in batch["pixels"][m:].split(k)]
        topics = [
            model.encode_text(*(batch[name][m + i : m + i + 1] for name in ("ids", "mask", "types"))) for i in range(g)
        ]
        return scores(photos, texts, torch.cat(topics), torch.stack(lists))

    def scores(photos: torch.Tensor, texts: torch.Tensor, topics: torch.Tensor, lists: torch.Tensor) -> torch.Tensor:
        ranked = torch.einsum("gd,gkd->gk", model.query(topics), lists)
        return torch.cat([(photos @ texts.T).flatten(), ranked.flatten()])

    outcome = {call.__name__: _step(model, call, options) for call in (one_call, a_call_a_list)}
    (ours, ours_grad), (theirs, theirs_grad) = outcome.values()
    times: dict[str, list[float]] = {name: [] for name in outcome}
    for _ in range(options.rounds):
        for call in (one_call, a_call_a_list):
            began = time.perf_counter()
            _step(model, call, options)
            times[call.__name__].append(time.perf_counter() - began)
    ratios = [a / b for a, b in zip(times["one_call"], times["a_call_a_list"], strict=True)]
    return {
        "photos": m + g * k,
        "lists": g,
        "largest_difference": float((ours - theirs).abs().max()),
        "gradient_difference": float((ours_grad - theirs_grad).norm() / theirs_grad.norm()),
        "time_ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def _step(
    model: torch.nn.Module, call: Callable[[], torch.Tensor], options: argparse.Namespace
) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    out = call()
    out.square().sum().backward()
    if options.device != "cpu":
        torch.cuda.synchronize()
    return out.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def validation(shop: str, settings: list[str]) -> dict[str, Any]:
    """Numbers of photos encoded, counted without a model."""
    from shoplens.config import override, read_yaml, validate
    from shoplens.curation.topics import TopicsConfig, topics_by_split, topics_of
    from shoplens.datasets.format import Dataset
    from shoplens.datasets.samples import catalog_codes
    from shoplens.recipes.clik import photos_of

    dataset = Dataset(shop)
    config = validate(TopicsConfig, override(read_yaml(str(CONFIGS / "clik.yaml")), settings)["topics"], "topics")
    topics = topics_of(dataset, config.made_of)
    table = topics_by_split(dataset, topics, config, catalog_codes(dataset))["val"]
    photos = photos_of(dataset)
    ours = len({int(photos[row][0]) for row in table.product})
    reference = len(table.topics) * REFERENCE_MATCHING + len(table)
    return {
        "topics": len(table.topics),
        "pairs": len(table),
        "pairs_scored": len(table.topics) * ours,
        "encoded": ours,
        "encoded_by_reference": reference,
        "ratio": reference / ours,
    }


def latency(endpoint: str) -> dict[str, Any]:
    """Percentiles of /v1/rank after ten calls to warm up; raises `httpx.HTTPStatusError` for an error answer."""
    import httpx

    products = httpx.get(f"{endpoint}/v1/products?limit=20", timeout=60).json()["data"]
    photos = [httpx.get(endpoint + product["image"], timeout=60) for product in products]
    images = [
        f"data:{photo.headers['content-type']};base64,{base64.b64encode(photo.content).decode()}" for photo in photos
    ]
    body = {"topic": {"name": "spring picnic", "kwds": ["light"]}, "images": images}
    times = []
    with httpx.Client(timeout=60) as http:
        for number in range(210):
            began = time.perf_counter()
            http.post(f"{endpoint}/v1/rank", json=body).raise_for_status()
            if number >= 10:
                times.append((time.perf_counter() - began) * 1000)
    low, high = np.percentile(times, [50, 95])
    return {"images": len(images), "calls": len(times), "p50_ms": float(low), "p95_ms": float(high)}


if __name__ == "__main__":
    main()
