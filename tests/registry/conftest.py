"""The MLflow server as a cluster's processes find it, and the means to fill its registry quickly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from shoplens.evaluation.results import Evaluation
from shoplens.nn.dual_encoder import DualEncoder, DualEncoderConfig
from shoplens.packages.embedder import Embedder
from shoplens.registry import runs
from tests.conftest import Server


@pytest.fixture
def server(mlflow_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """The server, as the processes of a cluster find it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    monkeypatch.setenv("SHOPLENS_STORAGE", str(tmp_path / "storage"))
    return mlflow_server


@dataclass(frozen=True)
class Shop:
    """A dataset as far as the registry looks at one: a folder with a manifest."""

    path: str
    name: str
    digest: str


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return write_shop(tmp_path / "shop")


@pytest.fixture(scope="session")
def make_shop() -> Callable[..., Shop]:
    return write_shop


def write_shop(folder: Path, content: str = "") -> Shop:
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{folder}{content}".encode()).hexdigest()
    manifest = {"format_version": 1, "name": "little-shop", "digest": digest, "files": {}, "provenance": {}}
    manifest |= {"counts": {}, "photos_by_split": {}, "rejects_by_reason": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Shop(str(folder), "little-shop", digest)


@pytest.fixture
def model_name(request: pytest.FixtureRequest) -> str:
    """A registered model of this test's own."""
    return hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]


@pytest.fixture
def add_version(server: Server, shop: Shop, model_name: str) -> Callable[..., int]:
    """Registers a version without files, for tests that only move aliases: () -> version."""

    def add(name: str = model_name) -> int:
        run_id = runs.start_run("versions", name, {"seed": 0}, shop)
        tracking = server.client
        if not tracking.search_registered_models(f"name='{name}'"):
            tracking.create_registered_model(name)
        tags = {"package_digest": hashlib.sha256(run_id.encode()).hexdigest()}
        source = f"{tracking.get_run(run_id).info.artifact_uri}/package"
        return int(tracking.create_model_version(name, source, run_id=run_id, tags=tags).version)

    return add


@pytest.fixture
def evaluated(shop: Shop) -> Callable[..., Evaluation]:
    """An evaluation in which the share `recall` of the queries is answered; in groups of four."""

    def evaluation(recall: float, *, on: Shop = shop, queries: int = 400, split: str = "test") -> Evaluation:
        hits = (np.random.default_rng(0).permutation(queries) < round(recall * queries)).astype(float)
        return Evaluation.of(
            {"text_to_image/recall@10": hits, "matching/image/recall@1": hits**2},
            dict.fromkeys(("text_to_image/recall@10", "matching/image/recall@1"), np.arange(queries) // 4),
            about={"dataset_digest": on.digest, "split": split},
        )

    return evaluation


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole package of a tiny untrained dual encoder."""
    import torch

    from shoplens.datasets.preprocessing import Preprocessing
    from shoplens.datasets.tokenizers import train_tokenizer

    torch.manual_seed(0)
    text = {"config": {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}}
    text["config"]["intermediate_size"] = 32
    config = DualEncoderConfig.model_validate(
        {"image": {"name": "test_convnext"}, "text": {**text, "max_tokens": 16, "vocab_size": 300}, "dim": 8}
    )
    tokenizer = train_tokenizer(["red dress 원피스", "blue shoe 신발"], 300, 16)
    preprocessing = Preprocessing(size=32)
    model = DualEncoder(config, preprocessing, tokenizer.get_vocab_size(), pretrained=False)
    folder = tmp_path_factory.mktemp("package") / "eclip"
    Embedder("eclip", config, preprocessing, tokenizer, model).save(folder, "# A tiny model\n", {"recipe": "eclip"})
    return folder
