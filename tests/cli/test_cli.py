from __future__ import annotations

import csv
import inspect
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient
from PIL import Image
from typer.testing import CliRunner, Result

from shoplens import cli
from shoplens.cli import dataset
from shoplens.cluster.ports import free_port
from shoplens.datasets.format import REJECTS, Dataset
from shoplens.datasets.importing import SOURCES
from shoplens.errors import ShoplensError
from shoplens.registry.promotion import gates_of
from shoplens.registry.runs import metric_key
from shoplens.registry.versions import ModelVersion
from shoplens.synthetic import SyntheticShop
from tests.conftest import ROOT
from tests.packages.pretrained.conftest import clip_folder, start

__all__ = ["clip_folder"]

SHOPLENS = [sys.executable, "-c", "from shoplens.cli import main; main()"]


def shoplens(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it, in a process of its own."""
    return subprocess.run(
        [*SHOPLENS, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
    )


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)


def commands(app: object = cli.app, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for group in app.registered_groups:  # type: ignore[attr-defined]
        yield from commands(group.typer_instance, (*before, group.name))
    for command in app.registered_commands:  # type: ignore[attr-defined]
        yield (*before, command.name or command.callback.__name__.rstrip("_").replace("_", "-"))


def test_help_imports_nothing_heavy() -> None:
    ask = "import sys, shoplens.cli; print(*{'ray', 'torch', 'mlflow', 'pyarrow', 'numpy'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert re.search(r"Usage: \S+ " + " ".join(command), result.output)
    assert len(result.output.split()) > 30
    assert re.search(r"Example:\s+shoplens " + " ".join(command) + " ", result.output)


def test_a_mistake_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    result = shoplens("dataset", "show", str(tmp_path))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {tmp_path} is not a dataset")
    assert "Traceback" not in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_debug_shows_where_it_arose(tmp_path: Path) -> None:
    result = shoplens("dataset", "show", str(tmp_path), SHOPLENS_DEBUG="1")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "ShoplensError" in result.stderr


def test_a_misspelt_key_in_a_cluster_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("name: c\nserve:\n  applicatons: []\n")
    result = shoplens("up", str(file))
    assert result.returncode == 2
    assert "serve.applicatons: unknown key; did you mean applications?" in result.stderr


def test_importable_kinds_are_those_of_the_importers() -> None:
    assert [kind.value for kind in dataset.SourceKind] == list(SOURCES)


def test_options_of_the_synthetic_shop_are_its_own() -> None:
    offered = {
        name: parameter.default
        for name, parameter in inspect.signature(dataset.synthesize).parameters.items()
        if name not in ("out", "name", "workers", "overwrite")
    }
    assert offered == SyntheticShop().model_dump()


def test_synthesize(tmp_path: Path) -> None:
    options = ("--products", "12", "--image-size", "48", "--sellers", "8", "--workers", "1")
    result = invoke("dataset", "synthesize", str(tmp_path / "shop"), *options)
    assert result.exit_code == 0
    assert "12 products" in result.output and f"dataset={tmp_path / 'shop'}" in result.output
    assert Dataset(tmp_path / "shop").manifest.counts["products"] == 12
    with pytest.raises(ShoplensError, match="exists already"):
        invoke("dataset", "synthesize", str(tmp_path / "shop"), *options)
    with pytest.raises(ShoplensError, match="need as many sellers"):
        invoke("dataset", "synthesize", str(tmp_path / "other"), "--sellers", "2")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, ray_local: None) -> Path:
    """A shop of six offers and one broken photo, imported by the command."""
    folder = tmp_path_factory.mktemp("cli")
    rows = []
    for number in range(6):
        Image.new("RGB", (40, 30), (40 * number, 90, 200)).save(folder / f"{number}.png")
        row = {
            "id": f"p{number}",
            "title": ["빨간 가방", "Blue shoe"][number % 2] + f" {number}",
            "category_path": ["Fashion", ["Bags", "Shoes"][number % 2]],
            "image": f"{number}.png",
        }
        rows.append(json.dumps(row, ensure_ascii=False))
    (folder / "5.png").write_bytes(b"not a picture")
    (folder / "products.jsonl").write_text("\n".join(rows))
    result = invoke("dataset", "import", "jsonl", str(folder / "products.jsonl"), str(folder / "out"))
    assert result.exit_code == 0, result.output
    assert "5 products, 5 photos" in result.output and "unreadable" in result.output
    return folder / "out"


def test_show(shop: Path) -> None:
    result = invoke("dataset", "show", str(shop))
    assert result.exit_code == 0
    rows = dict(re.findall(r"^(?:\s*)([a-z: _]+?)\s{2,}(\d+)\s*$", result.output, re.MULTILINE))
    counts = Dataset(shop).manifest.counts
    assert {name: int(rows[name]) for name in counts} == counts
    assert rows["kept out: unreadable"] == "1"
    for word in ("빨간 가방 0", "Fashion  5", "Bags  3", "Shoes  2"):
        assert word in result.output


def test_rejects(shop: Path, tmp_path: Path) -> None:
    result = invoke("dataset", "rejects", str(shop))
    assert result.exit_code == 0
    assert "kept out: unreadable  1\n  products.jsonl:6, p5, 5.png: " in result.output
    table = invoke("dataset", "rejects", str(shop), "--csv", "--reason", "no_photo").output
    [row] = csv.DictReader(io.StringIO(table))
    assert (row["product_id"], row["reason"]) == ("p5", "no_photo")
    rows = [{"source": f"a.csv:{n}", "product_id": "p", "reason": "field", "detail": f"price: {n}"} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(rows, schema=REJECTS), tmp_path / "rejects.parquet")
    few, every = (invoke("dataset", "rejects", str(tmp_path), *option).output for option in ([], ["--all"]))
    assert (
        "noted: field  5" in few and "a.csv:2, p: price: 2" in few and "... and 2 more" in few and "a.csv:3" not in few
    )
    assert "a.csv:4" in every
    with pytest.raises(ShoplensError, match="has no rejects.parquet"):
        invoke("dataset", "rejects", str(tmp_path / "nothing"))


def test_contact_sheet(shop: Path, tmp_path: Path) -> None:
    result = invoke(
        "dataset",
        "contact-sheet",
        str(shop),
        str(tmp_path / "s.png"),
        "--columns",
        "3",
        "--rows",
        "2",
        "--side",
        "64",
    )
    assert result.exit_code == 0
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == (8 + 3 * 72, 8 + 2 * (64 + 34 + 8))
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 16)}
    assert {(40 * number, 90, 200) for number in range(5)} <= colours


@pytest.mark.parametrize(
    ("out", "said"),
    [("sheet.txt", "is not the name of a picture"), ("missing/sheet.png", "there is no folder")],
)
def test_contact_sheet_says_what_is_wrong_with_its_output(shop: Path, tmp_path: Path, out: str, said: str) -> None:
    with pytest.raises(ShoplensError, match=said):
        invoke("dataset", "contact-sheet", str(shop), str(tmp_path / out))


def test_status_and_down_of_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    ports = {"ray": {"dashboard_port": free_port()}, "mlflow": {"port": free_port()}}
    file.write_text(yaml.safe_dump({"name": "c", "storage": str(tmp_path / "s"), **ports}))
    result = invoke("status", str(file))
    assert result.exit_code == 1
    assert len(re.findall(r"down +http:", result.output)) == 2 and "next: shoplens up" in result.output
    result = invoke("down", str(file))
    assert result.exit_code == 0 and result.output.startswith(f"nothing of {file} is running\n")


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, MlflowClient]:
    """A registry in a file, with `eclip` in two versions, the first of them champion."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", artifact_location=str(folder / "artifacts"))
    client.create_registered_model("eclip")
    for version in (1, 2):
        headline = {"headline.test": json.dumps(["text_to_image/recall@10"])} if version == 2 else {}
        run = client.create_run(experiment, tags={"dataset_name": "demo", **headline})
        client.log_metric(run.info.run_id, "test/text_to_image/recall_at_10", version / 10)
        gate = {"metric": "matching/image/map", "at_least": 0.1 * version}
        config = {"recipe": "eclip", "promotion": {"split": "val", "gates": [gate]}}
        client.log_text(run.info.run_id, yaml.safe_dump(config), "config.yaml")
        client.create_model_version("eclip", str(folder), run.info.run_id, tags={"gate": "passed"})
    client.set_registered_model_alias("eclip", "champion", "1")
    return uri, client


@pytest.fixture
def registry(tracking: tuple[str, MlflowClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    uri, client = tracking
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("SHOPLENS_STORAGE", str(tmp_path))
    monkeypatch.setenv("SHOPLENS_CLUSTER", str(ROOT / "clusters" / "local.yaml"))
    return client


def test_models(registry: MlflowClient) -> None:
    result = invoke("models", "eclip")
    assert result.exit_code == 0
    newer, older = (line for line in result.output.splitlines() if line.startswith("eclip/"))
    assert newer.startswith("eclip/2") and "champion" not in newer and "recall@10 0.200 (test)" in newer
    assert older.startswith("eclip/1") and "champion" in older and "demo" in older and "passed" in older


Row = Callable[..., list[list[str]]]


@pytest.fixture
def row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Row:
    """Registers one version in a registry of its own: the cells of its lines in `shoplens models`."""

    def shown(
        metrics: dict[str, float],
        tags: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        version_tags: dict[str, str] | None = None,
    ) -> list[list[str]]:
        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
        for name, value in (("MLFLOW_TRACKING_URI", uri), ("SHOPLENS_STORAGE", str(tmp_path))):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SHOPLENS_CLUSTER", str(ROOT / "clusters" / "local.yaml"))
        client = MlflowClient(uri)
        experiment = client.create_experiment("e", artifact_location=str(tmp_path / "artifacts"))
        run_id = client.create_run(experiment, tags={"dataset_name": "demo", **(tags or {})}).info.run_id
        for name, value in metrics.items():
            client.log_metric(run_id, metric_key(name), value)
        for name, text in (params or {}).items():
            client.log_param(run_id, name, text)
        client.create_registered_model("clik")
        client.create_model_version("clik", str(tmp_path), run_id, tags=version_tags or {})
        result = invoke("models", "clik")
        assert result.exit_code == 0
        heading, *lines = result.output.rstrip("\n").splitlines()
        starts = [heading.index(name) for name in ("can", "figures")]
        return [[line[starts[0] : starts[1]].strip(), line[starts[1] :].strip()] for line in lines]

    return shown


def test_models_show_the_headline_metrics_and_capabilities_of_any_recipe(row: Row) -> None:
    headline = {
        "headline.lists": '["lists/coverage@20"]',
        "headline.val": '["ranking/ndcg@10", "topics/map"]',
        "headline.test": '["ranking/ndcg@10", "ranking/never_measured"]',
    }
    metrics = {
        "test/ranking/ndcg@10": 0.5,
        "val/ranking/ndcg@10": 0.6,
        "val/topics/map": 0.25,
        "lists/coverage@20": 0.9,
        "test/ranking/mrr": 0.1,
    }
    assert row(metrics, headline, version_tags={"capabilities": '["embed_image", "rank"]'}) == [
        ["embed_image", "ranking/ndcg@10 0.500 (test)"],
        ["rank", "topics/map 0.250 (val)"],
        ["", "lists/coverage@20 0.900 (lists)"],
    ]


def test_models_of_runs_without_headline_show_three_metrics_of_their_gates(row: Row) -> None:
    names = ["a/x@1", "b", "not_measured", "c", "d"]
    gates = json.dumps([{"metric": name, "at_least": 0.1} for name in names])
    metrics = {"test/a/x@1": 0.1, "val/a/x@1": 0.2, "val/b": 0.3, "test/c": 0.4, "val/d": 0.5, "train/b": 0.6}
    shown = row(metrics, params={"promotion.gates": gates})
    assert shown == [["", "a/x@1 0.100 (test)"], ["", "c 0.400 (test)"], ["", "b 0.300 (val)"]]


@pytest.mark.parametrize("gates", [None, '[{"metric": "a", "at_le…', "null"])
def test_models_of_runs_that_name_no_metric_show_none(row: Row, gates: str | None) -> None:
    assert row({"test/a": 0.1}, params={"promotion.gates": gates} if gates else {}) == [["", ""]]


def test_unknown_models_versions_and_histories_are_sentences(registry: MlflowClient) -> None:
    for arguments, said in [
        (("models", "clip"), "no registered model 'clip' (there is: eclip)"),
        (("promote", "eclip", "7"), "7"),
        (("rollback", "eclip"), "no version before eclip/1"),
    ]:
        with pytest.raises(ShoplensError) as caught:
            invoke(*arguments)
        assert said in str(caught.value)


def test_promoting_the_champion_changes_nothing(registry: MlflowClient) -> None:
    result = invoke("promote", "eclip", "1", "--reason", "again")
    assert result.exit_code == 0
    assert "eclip/1 is champion already" in result.output


def test_promoting_without_an_index_says_so_first(registry: MlflowClient, tmp_path: Path) -> None:
    """Where search is on, for the alias that is served, of a model that gives vectors."""
    gates, cluster = tmp_path / "gates.yaml", tmp_path / "cluster.yaml"
    gates.write_text("promotion:\n  gates: [{metric: a, at_least: 0}]\n")

    def said(**args: object) -> str:
        application = {"name": "shop", "import_path": "serve_apps.shop:app", "args": args}
        cluster.write_text(yaml.safe_dump({"name": "c", "serve": {"applications": [application]}}))
        found = CliRunner().invoke(
            cli.app, ["promote", "eclip", "2", "--gates", str(gates), "--cluster", str(cluster), "--dry-run"]
        )
        assert "does not say which dataset" in str(found.exception)
        return found.output

    command = "python -m workloads.build_index --model eclip/2 dataset=DIR"
    assert f"eclip/2 has no index, and search is on: it is served once you run {command}" in said()
    assert "no index" not in said(search=False) + said(alias="challenger") + said(models=["similar"])
    for tag, value in (("capabilities", '["rank"]'), ("index", "/there")):
        registry.set_model_version_tag("eclip", "2", tag, value)
        assert "no index" not in said()
        registry.delete_model_version_tag("eclip", "2", tag)


def test_commands_that_only_look_import_neither_torch_nor_ray(tmp_path: Path) -> None:
    """They answer in a moment, also on a busy machine."""
    file = tmp_path / "c.yaml"
    ports = {"ray": {"dashboard_port": free_port()}, "mlflow": {"port": free_port()}}
    serve = {"applications": [{"name": "shop", "import_path": "serve_apps.shop:app"}]}
    file.write_text(yaml.safe_dump({"name": "c", "storage": str(tmp_path), "serve": serve, **ports}))
    for arguments, imported in (
        (["status", str(file)], {"torch", "ray", "mlflow"}),
        (["down", str(file)], {"torch", "ray", "mlflow"}),
        (["promote", "eclip", "1", "--cluster", str(file)], {"torch", "ray", "transformers", "sklearn", "faiss"}),
    ):
        ask = f"import sys; from shoplens.cli import app\ntry: app({arguments})\nexcept BaseException: pass\n"
        ask += f"print('imported', *{imported} & set(sys.modules))"
        answer = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
        assert answer.stdout.strip().splitlines()[-1] == "imported", arguments


def test_gates_come_from_the_run_or_a_file(registry: MlflowClient, tmp_path: Path) -> None:
    found = registry.get_model_version("eclip", "2")
    version = ModelVersion("eclip", 2, found.run_id)
    gates = gates_of(version)
    assert gates.split == "val"
    assert [(gate.metric, gate.at_least) for gate in gates.gates] == [("matching/image/map", 0.2)]
    file = tmp_path / "gates.yaml"
    file.write_text("promotion:\n  gates:\n    - {metric: a, max_drop: 0.1}\n")
    assert gates_of(version, str(file)).gates[0].max_drop == 0.1
    file.write_text("recipe: eclip\n")
    with pytest.raises(ShoplensError, match="has no section `promotion:`"):
        gates_of(version, str(file))
    file.write_text("promotion:\n  gates:\n    - {metric: a, at_leest: 0.1}\n")
    with pytest.raises(ShoplensError, match="did you mean at_least"):
        gates_of(version, str(file))


def test_export_writes_what_transformers_reads(clip_folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPModel

    start(clip_folder).save(tmp_path / "package", "", {})
    result = invoke("export", str(tmp_path / "package"), str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    ours, theirs = (CLIPModel.from_pretrained(folder).state_dict() for folder in (tmp_path / "out", clip_folder))
    assert all((ours[name] == weight).all() for name, weight in theirs.items())
    with pytest.raises(ShoplensError, match="out exists: name a folder to make"):
        invoke("export", str(tmp_path / "package"), str(tmp_path / "out"))
