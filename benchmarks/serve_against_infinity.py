"""Embedding server: shoplens beside infinity-emb, with the same weights and the same client.

    python benchmarks/serve_against_infinity.py [--out docs/results/serve_against_infinity]

The model is a CLIP ViT-B/32 with random weights, written as a checkpoint of transformers. infinity-emb reads the
checkpoint; shoplens reads a package that starts from it. infinity-emb runs in a virtual environment of its own with this
environment's torch. shoplens runs as `shoplens up` starts it: HAProxy, Gateway, Encoder, and MLflow beside them.

Every client sends one text or one photo in a request and waits for the answer. No input is in flight twice. The sides
take turns; the figure of a cell is the median of its turns, and a ratio is the median of the ratios of turns that follow
each other. Every answer is compared with the vectors that transformers computes in float32. `bare` is the packaged model
without a server: batches of 32 inputs, on the same threads and in the same precision, in the same turns.

Duration at the default size on 2 cores: about 12 minutes, after the download of infinity-emb.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil
from own_platform import own_platform
from peers import INFINITY, environment
from PIL import Image

from shoplens.cluster.ports import free_port

KINDS = ("texts", "photos")
NAME = "clip"
START_S = 300
BATCH = 32


@dataclass
class Side:
    """A running server, the body of a request for one input, and the server's processes.

    `rates` are answers a second, `seconds` the processor time of the server's processes for an answer, by cell and turn.
    """

    url: str
    body: Any
    processes: Callable[[], Iterable[psutil.Process]]
    seconds: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    cosine: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 1.0))

    def processor_seconds(self) -> float:
        """Time that the server's processes have used so far."""
        used = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used += times.user + times.system
        return used


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    arguments.add_argument("--turns", type=int, default=3, help="turns of each side in each cell")
    arguments.add_argument("--seconds", type=float, default=4, help="least length of a turn, seconds")
    arguments.add_argument("--inputs", type=int, default=128, help="distinct texts and photos")
    arguments.add_argument("--photo", type=int, default=512, help="width and height of a photo, pixels")
    arguments.add_argument("--infinity", nargs="*", default=[], help="further options of infinity-emb")
    arguments.add_argument("--out", type=Path, help="the result is written to OUT.json and OUT.md")
    arguments.add_argument("--bare", nargs=2, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.bare:
        as_bare_model(Path(options.bare[0]), options.bare[1])
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        python = environment("infinity", INFINITY)
        write_inputs(folder, options.inputs, options.photo)
        save_checkpoint(python, folder)
        truth = float32_vectors(folder)
        save_package(folder)
        with (
            infinity(python, folder, options.infinity) as theirs,
            shoplens(folder) as (ours, precision),
            bare_model(folder, precision) as bare,
        ):
            sides = {"shoplens": ours, "infinity": theirs}
            alone = compare(sides, bare, folder, truth, options)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "precision": precision,
        **summary(sides, alone),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "load_average": os.getloadavg()},
        "versions": {name: version(name) for name in ("torch", "transformers", "ray", "Pillow")}
        | {"peer": INFINITY[0]},
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(table(result))


def write_inputs(folder: Path, count: int, side: int) -> None:
    """`texts.json` with English titles of a synthetic shop, and photos of it as JPEGs in `photos`."""
    from shoplens.datasets.format import Dataset
    from shoplens.synthetic import SyntheticShop, synthesize
    from shoplens.synthetic.titles import clean_titles

    designs = SyntheticShop(products=8 * count, seed=7).catalogue
    titles = dict.fromkeys(clean_titles(designs.design(place))["title_en"] for place in range(designs.catalogs))
    (folder / "texts.json").write_text(json.dumps(list(titles)[:count]))
    made = SyntheticShop(products=count, seed=7, image_size=side)
    synthesize(folder / "shop", made, name="shop", progress=False)
    shop = Dataset(str(folder / "shop"))
    (folder / "photos").mkdir()
    for number in range(min(count, shop.images.num_rows)):
        (folder / "photos" / f"{number:04}.jpg").write_bytes(shop.read_image(number))


def read_texts(folder: Path) -> list[str]:
    return list(json.loads((folder / "texts.json").read_text()))


def read_photos(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((folder / "photos").iterdir())]


def save_checkpoint(python: Path, folder: Path) -> None:
    """Writes `checkpoint`: CLIP ViT-B/32 with random weights and OpenAI's vocabulary, as open_clip's package brings it.

    Noise on all weights keeps the vectors of different inputs apart.
    """
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    printed = subprocess.run([str(python), "-c", VOCABULARY], check=True, capture_output=True, text=True).stdout
    vocabulary, merges = json.loads(printed)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(projection_dim=512))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    tokenizer = CLIPTokenizer(vocabulary, [tuple(merge) for merge in merges], model_max_length=77)
    for part in (model, tokenizer, CLIPImageProcessorPil()):
        part.save_pretrained(folder / "checkpoint")


def float32_vectors(folder: Path) -> dict[str, np.ndarray]:
    """Unit vectors float32 [n, 512] of the inputs, computed by transformers."""
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    checkpoint = folder / "checkpoint"
    torch.set_num_threads(1)  # a busy machine costs one thread its share, two threads far more
    model = CLIPModel.from_pretrained(checkpoint).eval()
    tokenizer, processor = CLIPTokenizer.from_pretrained(checkpoint), CLIPImageProcessorPil.from_pretrained(checkpoint)
    photos = [Image.open(io.BytesIO(data)).convert("RGB") for data in read_photos(folder)]
    texts = read_texts(folder)

    def encode(kind: str, start: int) -> torch.Tensor:
        part = slice(start, start + BATCH)
        if kind == "texts":
            tokens = tokenizer(texts[part], padding=True, truncation=True, return_tensors="pt")
            return model.get_text_features(**tokens).pooler_output
        return model.get_image_features(**processor(photos[part], return_tensors="pt")).pooler_output

    with torch.inference_mode():
        rows = {
            kind: torch.cat([encode(kind, start) for start in range(0, count, BATCH)])
            for kind, count in (("texts", len(texts)), ("photos", len(photos)))
        }
    return {kind: torch.nn.functional.normalize(found, dim=-1).numpy() for kind, found in rows.items()}


def save_package(folder: Path) -> None:
    """Writes `package`, a shoplens package that starts from the checkpoint."""
    from shoplens.nn.dual_encoder import DualEncoder
    from shoplens.packages.embedder import Embedder
    from shoplens.packages.pretrained import read

    source = read(str(folder / "checkpoint"))
    model = DualEncoder(source.model, source.preprocessing, source.tokenizer.get_vocab_size(), pretrained=False)
    model.start(source.weights())
    embedder = Embedder(NAME, source.model, source.preprocessing, source.tokenizer, model)
    embedder.save(folder / "package", "# CLIP ViT-B/32 with random weights\n", {})


@contextmanager
def infinity(python: Path, folder: Path, options: Sequence[str]) -> Iterator[Side]:
    port = free_port()
    command = [str(python.with_name("infinity_emb")), "v2", "--model-id", str(folder / "checkpoint")]
    command += ["--served-model-name", NAME, "--port", str(port), "--host", "127.0.0.1", *options]
    offline = {"HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1"}
    with (folder / "infinity.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | offline, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(f"{url}/health", lambda answer: True, folder / "infinity.log", server)
            yield Side(f"{url}/embeddings", infinity_body, lambda: family([server.pid]))
        finally:
            server.terminate()
            server.wait()


def infinity_body(kind: str, given: str) -> Any:
    return {"model": NAME, "input": [given], "modality": "image" if kind == "photos" else "text"}


def shoplens_body(kind: str, given: str) -> Any:
    return {"model": NAME, "input": [{"type": "image_url", "image_url": {"url": given}} if kind == "photos" else given]}


@contextmanager
def shoplens(folder: Path) -> Iterator[tuple[Side, str]]:
    """The server, and the precision that it chose."""
    from shoplens.cluster.state import State
    from shoplens.registry import versions
    from shoplens.registry.runs import client

    with own_platform(folder, "serve-benchmark", search=False, page=False) as cluster:
        registry = client(cluster.mlflow_uri)
        run = registry.create_run(registry.create_experiment(NAME))
        made = versions.register(run.info.run_id, NAME, folder / "package", tracking_uri=cluster.mlflow_uri)
        registry.set_registered_model_alias(NAME, "champion", str(made))
        log = Path(cluster.storage_path)
        wait_until(f"{cluster.endpoint}/healthz", lambda answer: answer["models"].get(NAME) is not None, log)
        [row] = httpx.get(f"{cluster.endpoint}/v1/models").json()["data"]
        roots = [started.pid for started in State.read(cluster).processes.values()]
        yield Side(f"{cluster.endpoint}/v1/embeddings", shoplens_body, lambda: family(roots)), row["precision"]


def family(roots: Iterable[int]) -> list[psutil.Process]:
    """The processes and their descendants."""
    found = [psutil.Process(root) for root in roots]
    return [*found, *(child for root in found for child in root.children(recursive=True))]


def wait_until(url: str, ready: Any, log: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        try:
            answer = httpx.get(url, timeout=30)
            if answer.status_code == 200 and ready(answer.json()):
                return
        except httpx.HTTPError:
            pass
        time.sleep(1)
    sys.exit(f"{url} does not answer; see {log}:\n{log.read_text()[-3000:] if log.is_file() else ''}")


@contextmanager
def bare_model(folder: Path, precision: str) -> Iterator[subprocess.Popen[str]]:
    """A process that answers a line of kind and seconds by the rate, inputs a second."""
    command = [sys.executable, __file__, "--bare", str(folder), precision]
    process = subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def as_bare_model(folder: Path, precision: Any) -> None:
    from shoplens.packages.capabilities import EMBED_IMAGE, EMBED_TEXT
    from shoplens.packages.embedder import Embedder
    from shoplens.packages.precision import converted

    model = Embedder.load(folder / "package")
    runner = converted(model, precision)
    photos = [model.preprocess(Image.open(io.BytesIO(data)).convert("RGB")) for data in read_photos(folder)[:BATCH]]
    asked: dict[str, tuple[Any, list[Any]]] = {
        "photos": (EMBED_IMAGE, photos),
        "texts": (EMBED_TEXT, read_texts(folder)[:BATCH]),
    }
    for line in sys.stdin:
        kind, seconds = line.split()
        runner.call(*asked[kind])
        began, used, batches = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < float(seconds):
            runner.call(*asked[kind])
            batches += 1
        print(
            batches * BATCH / (time.perf_counter() - began), (time.process_time() - used) / batches / BATCH, flush=True
        )


def compare(
    sides: Mapping[str, Side],
    bare: subprocess.Popen[str],
    folder: Path,
    truth: Mapping[str, np.ndarray],
    options: argparse.Namespace,
) -> Side:
    """Fills in the rates and cosines of both sides; the bare model's, in the cells of 0 clients."""
    photos = ["data:image/jpeg;base64," + base64.b64encode(data).decode() for data in read_photos(folder)]
    inputs = {"texts": read_texts(folder), "photos": photos}
    bodies = {
        (name, kind): [json.dumps(side.body(kind, given)).encode() for given in inputs[kind]]
        for name, side in sides.items()
        for kind in KINDS
    }
    for name, side in sides.items():
        for kind in KINDS:
            asyncio.run(rate(side, kind, bodies[name, kind][:64], truth[kind], 16, 0))
    alone = Side("", None, list)
    for turn in range(options.turns):
        for kind in KINDS:
            assert bare.stdin is not None and bare.stdout is not None
            bare.stdin.write(f"{kind} {options.seconds}\n")
            bare.stdin.flush()
            found, used = map(float, bare.stdout.readline().split())
            alone.rates.setdefault((kind, 0), []).append(found)
            alone.seconds.setdefault((kind, 0), []).append(used)
            for clients in options.clients:
                order = list(sides.items())[:: 1 if turn % 2 == 0 else -1]
                for name, side in order:
                    found, used = asyncio.run(
                        rate(side, kind, bodies[name, kind], truth[kind], clients, options.seconds)
                    )
                    side.rates.setdefault((kind, clients), []).append(found)
                    side.seconds.setdefault((kind, clients), []).append(used)
                latest = {
                    name: (round(side.rates[kind, clients][-1], 1), round(side.seconds[kind, clients][-1], 4))
                    for name, side in sides.items()
                }
                print(kind, clients, latest, file=sys.stderr, flush=True)
            print(kind, "bare", alone.rates[kind, 0][-1], alone.seconds[kind, 0][-1], file=sys.stderr, flush=True)
    return alone


async def rate(
    side: Side, kind: str, bodies: Sequence[bytes], truth: np.ndarray, clients: int, seconds: float
) -> tuple[float, float]:
    """Answers a second while `clients` ask, and processor seconds of the server for an answer.

    The rate is that from the first answer of every client on, for `seconds` and two answers of each. Keeps the least
    cosine of an answer in `side`.
    """
    done: list[tuple[float, int, bytes]] = []
    places = iter(range(10**9))
    began = time.perf_counter()

    def over() -> bool:
        if len(done) < 3 * clients:
            return False
        return time.perf_counter() - max(done[clients - 1][0], began) > seconds

    async def client(session: aiohttp.ClientSession) -> None:
        while not over():
            place = next(places) % len(bodies)
            async with session.post(side.url, data=bodies[place], headers=HEADERS) as answer:
                content = await answer.read()
                if answer.status != 200:
                    sys.exit(f"{side.url} answers {answer.status}: {content[:300]!r}")
            done.append((time.perf_counter(), place, content))

    timeout = aiohttp.ClientTimeout(total=None)
    used = side.processor_seconds()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    used = (side.processor_seconds() - used) / len(done)
    rows = np.array([json.loads(content)["data"][0]["embedding"] for _, _, content in done[: 2 * len(bodies)]])
    cosines = (rows * truth[[place for _, place, _ in done[: 2 * len(bodies)]]]).sum(1)
    side.cosine[kind] = min(side.cosine[kind], float(cosines.min()))
    whole = done[clients - 1 : len(done) - clients + 1]  # while every client is at work
    return (len(whole) - 1) / (whole[-1][0] - whole[0][0]), used


HEADERS = {"Content-Type": "application/json"}
VOCABULARY = """
import json, open_clip
tokenizer = open_clip.get_tokenizer("ViT-B-32")
vocabulary = dict(tokenizer.encoder)
start, end = vocabulary.pop("<start_of_text>"), vocabulary.pop("<end_of_text>")
vocabulary |= {"<|startoftext|>": start, "<|endoftext|>": end}
print(json.dumps([vocabulary, sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)]))
"""


def summary(sides: Mapping[str, Side], alone: Side) -> dict[str, Any]:
    ours, theirs = sides["shoplens"], sides["infinity"]
    cells = []
    for (kind, clients), rates in ours.rates.items():
        cell, bare = (kind, clients), (kind, 0)
        cells.append(
            {
                "kind": kind,
                "clients": clients,
                "rate": {"shoplens": median(rates), "infinity": median(theirs.rates[cell])},
                "ratio": middle(rates, theirs.rates[cell]),
                "of_bare": middle(rates, alone.rates[bare]),
                "processor_seconds": {"shoplens": median(ours.seconds[cell]), "infinity": median(theirs.seconds[cell])},
                "processor_ratio": middle(theirs.seconds[cell], ours.seconds[cell]),
                "processor_of_bare": middle(alone.seconds[bare], ours.seconds[cell]),
                "turns": {"shoplens": rates, "infinity": theirs.rates[cell]},
            }
        )
    return {
        "cells": cells,
        "bare": {
            kind: {"rate": median(alone.rates[kind, 0]), "processor_seconds": median(alone.seconds[kind, 0])}
            for kind in KINDS
        },
        "least_cosine": {name: side.cosine for name, side in sides.items()},
    }


def middle(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the ratios, turn by turn."""
    return median(one / other for one, other in zip(above, below, strict=True))


def table(result: Mapping[str, Any]) -> str:
    lines = [
        "# Embedding server",
        "",
        f"`{result['command']}` on {result['machine']['cpus']} cores: CLIP ViT-B/32 with random weights, shoplens in "
        f"{result['precision']}, {result['versions']['peer']} as it starts by itself. Inputs a second and "
        "milliseconds of processor time that the server's processes use for one, medians over turns; a ratio is the median "
        "over turns that follow each other. Processor time depends less on what else the machine does.",
        "",
        "| inputs | clients | shoplens | infinity-emb | ratio | of the bare model | ms of processor: shoplens | "
        "infinity-emb | ratio | of the bare model |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {cell['kind']} | {cell['clients']} | {cell['rate']['shoplens']:.1f} | {cell['rate']['infinity']:.1f} | "
        f"**{cell['ratio']:.2f}** | {cell['of_bare']:.2f} | {1e3 * cell['processor_seconds']['shoplens']:.1f} | "
        f"{1e3 * cell['processor_seconds']['infinity']:.1f} | **{cell['processor_ratio']:.2f}** | "
        f"{cell['processor_of_bare']:.2f} |"
        for cell in result["cells"]
    ]
    bare = ", ".join(
        f"{found['rate']:.1f} {kind} a second, {1e3 * found['processor_seconds']:.1f} ms of processor for one"
        for kind, found in result["bare"].items()
    )
    lines += ["", f"The bare model in batches of {BATCH}: {bare}.", "", "Least cosine to float32:", ""]
    lines += ["| | texts | photos |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {found['texts']:.6f} | {found['photos']:.6f} |" for name, found in result["least_cosine"].items()
    ]
    loads = ", ".join(f"{load:.1f}" for load in result["machine"]["load_average"])
    return "\n".join([*lines, "", f"Load average of the machine at the end (1, 5, 15 minutes): {loads}.", ""])


if __name__ == "__main__":
    main()
