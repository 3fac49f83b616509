from __future__ import annotations

import base64
import io
import json
import pickle
import shutil
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations
from PIL import Image

from shoplens.datasets.preprocessing import Preprocessing
from shoplens.errors import ShoplensError
from shoplens.nn.similar import HeadConfig, SimilarConfig, SimilarEncoder
from shoplens.nn.towers import ImageTowerConfig
from shoplens.nn.watermark import MarkDetector, MarkDetectorConfig, TilesConfig
from shoplens.packages.embedder import Embedder
from shoplens.recipes.similar import SimilarEmbedder
from shoplens.recipes.watermark import MarkScorer
from shoplens.registry import runs
from shoplens.registry.versions import ModelVersion, checksums, download, register, resolve

if TYPE_CHECKING:
    from conftest import Server, Shop


@pytest.fixture
def run_id(server: Server, shop: Shop) -> str:
    return runs.start_run("packages", "a", {"seed": 1}, shop)


@pytest.fixture(scope="module")
def registered(
    mlflow_server: Server,
    make_shop: Callable[..., Shop],
    package: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> ModelVersion:
    """A package registered by explicit tracking URI, nothing being set in the environment."""
    uri, shop = mlflow_server.uri, make_shop(tmp_path_factory.mktemp("shop"))
    register(runs.start_run("packages", "shared", {}, shop, tracking_uri=uri), "shared", package, tracking_uri=uri)
    return resolve("shared@candidate", tracking_uri=uri)


def test_registered_fetched_and_the_same_to_the_byte(
    server: Server, run_id: str, model_name: str, package: Path, tmp_path: Path
) -> None:
    assert register(run_id, model_name, package, tags={"arm": "eclip"}) == 1
    version = resolve(f"{model_name}@candidate")
    assert (version.name, version.version, version.run_id) == (model_name, 1, run_id)
    assert version.tags["arm"] == "eclip"
    assert str(version) == f"{model_name}/1"
    folder = download(version, tmp_path / "cache")
    assert checksums(folder) == checksums(package)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
        folder.name,
        f"{folder.name}.lock",
    ]
    assert register(run_id, model_name, package) == 2, "a package may be registered again"
    assert resolve(f"{model_name}@candidate").version == 2
    run = server.client.get_run(run_id)
    assert len(run.outputs.model_outputs) == 2


def test_no_pickle_is_in_the_registered_model(server: Server, registered: ModelVersion, tmp_path: Path) -> None:
    model = mlflow.artifacts.download_artifacts(registered.uri, dst_path=str(tmp_path), tracking_uri=server.uri)
    for path in Path(model).rglob("*"):
        if path.is_file():
            assert path.suffix not in {".pkl", ".pt", ".pth", ".bin"}
            with pytest.raises(Exception):  # noqa: B017 - many classes, all of them refusals
                pickle.loads(path.read_bytes())
    requirements = (Path(model) / "requirements.txt").read_text().split()
    assert f"torch=={torch.__version__.partition('+')[0]}" in [line.partition("+")[0] for line in requirements]
    assert not any(line.startswith("shoplens") for line in requirements), "no index has it: the name could be anyone's"


def test_a_damaged_cache_is_fetched_again(
    server: Server, registered: ModelVersion, package: Path, tmp_path: Path
) -> None:
    folder = download(registered, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (folder / "extra.json").write_text("{}")
    abandoned = tmp_path / f".{folder.name}-killed"
    abandoned.mkdir()
    assert download(registered, tmp_path) == folder
    assert checksums(folder) == checksums(package)
    assert not abandoned.exists()


def test_a_cached_package_needs_no_server(
    server: Server, registered: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = download(registered, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert download(registered, tmp_path) == folder


def test_many_callers_at_once_fetch_once(
    server: Server, registered: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched, original = [], mlflow.artifacts.download_artifacts

    def counting(**arguments: str) -> str:
        fetched.append(arguments)
        return original(**arguments)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", counting)
    together = threading.Barrier(4)

    def call(_: int) -> Path:
        together.wait()
        return download(registered, tmp_path)

    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(call, range(4)))
    assert len(folders) == 1
    assert len(fetched) == 1


def test_files_changed_in_the_registry_are_refused(
    server: Server, run_id: str, model_name: str, package: Path, tmp_path: Path
) -> None:
    register(run_id, model_name, package)
    version = resolve(f"{model_name}@candidate")
    model_id = version.source.removeprefix("models:/")
    (weights,) = (server.root / "artifacts").rglob(f"{model_id}/**/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ShoplensError, match="are not the ones that were registered"):
        download(version, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()], "nothing half-written"


@pytest.mark.parametrize(
    "name", ["model.pkl", "weights.pt", "weights.pth", "pytorch_model.bin", "code.py", "a/b.joblib"]
)
def test_a_package_with_files_that_may_run_code_is_refused(
    run_id: str, model_name: str, package: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(package, tmp_path / "package")
    (folder / name).parent.mkdir(exist_ok=True)
    torch.save({"w": torch.zeros(1)}, folder / name)
    with pytest.raises(ShoplensError, match=name):
        register(run_id, model_name, folder)
    with pytest.raises(ShoplensError, match="knows no model"):
        resolve(model_name)


def test_a_pickle_in_disguise_and_a_missing_file_are_refused(
    run_id: str, model_name: str, package: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(package, tmp_path / "package")
    torch.save({"w": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ShoplensError, match="is not a safetensors file"):
        register(run_id, model_name, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ShoplensError, match=r"tokenizer\.json is missing"):
        register(run_id, model_name, folder)


def test_references(server: Server, model_name: str, add_version: Callable[..., int]) -> None:
    first, second = add_version(), add_version()
    server.client.set_registered_model_alias(model_name, "champion", str(first))
    server.client.set_registered_model_alias(model_name, "challenger", str(second))
    for prefix in ("", "models:/"):
        assert resolve(f"{prefix}{model_name}").version == first
        assert resolve(f"{prefix}{model_name}@challenger").version == second
        assert resolve(f"{prefix}{model_name}/{second}").version == second
    for wrong, message in {
        f"{model_name}@chalenger": r"no version .* is 'chalenger' \(aliases: challenger -> 2, champion -> 1",
        f"{model_name}/3": r"has no version 3 \(versions: 1, 2\)",
        "eclipse-of-the-heart": f"knows no model .*{model_name}",
        "eclip@": "names no model",
        "models:/a/b/c": "names no model",
        "": "names no model",
    }.items():
        with pytest.raises(ShoplensError, match=message):
            resolve(wrong)


def test_a_deleted_or_failed_version_is_an_error(
    server: Server, model_name: str, add_version: Callable[..., int]
) -> None:
    first, second = add_version(), add_version()
    server.client.delete_model_version(model_name, str(first))
    with pytest.raises(ShoplensError, match=r"has no version 1 \(versions: 2\)"):
        resolve(f"{model_name}/{first}")
    fail_registration(server, model_name, second)
    with pytest.raises(ShoplensError, match=r"/2 is not ready \(FAILED_REGISTRATION"):
        resolve(f"{model_name}/{second}")


def fail_registration(server: Server, name: str, version: int) -> None:
    """What a server leaves that died while it registered; no call of the API makes one."""
    with sqlite3.connect(server.root / "mlflow.db") as database:
        database.execute(
            "UPDATE model_versions SET status = 'FAILED_REGISTRATION' WHERE name = ? AND version = ?",
            (name, version),
        )


def _photo() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_pyfunc_that_embeds_as_the_embedder_does(
    server: Server, registered: ModelVersion, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    server.client.set_registered_model_alias(registered.name, "champion", str(registered.version))
    model = mlflow.pyfunc.load_model(f"models:/{registered.name}@champion")
    embedder, photo = Embedder.load(package), _photo()
    from shoplens.datasets.images import decode

    by_image = embedder.encode_images(embedder.preprocess(decode(photo).image)[None])[0]
    by_text = embedder.encode_texts(["red dress"])[0]

    encoded = base64.b64encode(photo).decode()
    path = tmp_path / "photo.png"
    path.write_bytes(photo)
    mixed = pd.DataFrame(
        {
            "text": ["red dress", None, None, "", None],
            "image": [None, photo, encoded, f"data:image/png;base64,{encoded}", path],
        },
        index=[10, 11, 12, 13, 14],
    )
    answer = model.predict(mixed)
    assert list(answer.columns) == ["embedding"]
    assert list(answer.index) == [10, 11, 12, 13, 14]
    vectors = np.stack(answer["embedding"].map(np.asarray))
    np.testing.assert_allclose(vectors[0], by_text, atol=1e-6)
    np.testing.assert_allclose(vectors[1:], np.tile(by_image, (4, 1)), atol=1e-6)

    only_text = model.predict(pd.DataFrame({"text": ["red dress", "원피스"]}))["embedding"]
    np.testing.assert_allclose(only_text[0], by_text, atol=1e-6)
    only_image = model.predict(pd.DataFrame({"image": [photo]}))["embedding"]
    np.testing.assert_allclose(only_image[0], by_image, atol=1e-6)
    assert len(json.dumps(answer["embedding"].tolist())) > 0

    for wrong, message in [
        ({"text": ["a", "b"], "image": [None, photo]}, "row 1: give a text or an image"),
        ({"text": ["a", ""]}, "row 1: give a text or an image"),
        ({"image": [photo, photo[:-200]]}, "row 1: the image is cut short"),
        ({"image": [str(path)]}, "row 0: the image is neither base64 .*; give a file as pathlib.Path"),
        ({"Text": ["red dress"]}, "columns 'text', 'image': rename 'Text' to 'text'"),
        ({"title": ["red dress"], "price": [3]}, "columns 'text', 'image', but there is 'title', 'price'"),
    ]:
        with pytest.raises(ShoplensError, match=message):
            model.predict(pd.DataFrame(wrong))

    image, lines = Image.open(io.BytesIO(photo)), base64.encodebytes(photo).decode()
    for given, expected in (
        ("red dress", [by_text]),
        (["red dress", encoded, lines, photo, image, path, np.asarray(image)], [by_text, *[by_image] * 6]),
        (pd.Series(["red dress", photo], [3, 5], name="title"), [by_text, by_image]),
        (pd.Series([photo], name="image"), [by_image]),
        (np.array(["red dress"]), [by_text]),
        (np.array([["red dress"], ["red dress"]], dtype=object), [by_text, by_text]),
        ({"text": ["red dress", "red dress"]}, [by_text, by_text]),
        ({"text": "red dress"}, [by_text]),
        ({"image": np.asarray(image)}, [by_image]),
        (np.stack([np.asarray(image)] * 2), [by_image, by_image]),
        ([{"text": "red dress"}, {"image": bytearray(photo), "text": None}], [by_text, by_image]),
        (pa.table({"text": ["red dress", None], "image": [None, photo]}), [by_text, by_image]),
        (image, [by_image]),
    ):
        answer = model.predict(given)
        np.testing.assert_allclose(np.stack(answer["embedding"].map(np.asarray)), expected, atol=1e-6)
        if isinstance(given, pd.Series):
            assert list(answer.index) == list(given.index)
    for body, n in (
        ({"dataframe_split": {"columns": ["text"], "data": [["red dress"], ["x"]]}}, 2),
        ({"dataframe_records": [{"text": "red dress"}, {"image": lines}]}, 2),
        ({"inputs": ["red dress", f"data:image/png;base64,{encoded}"]}, 2),
        ({"instances": [{"text": "red dress"}]}, 1),
    ):
        served = invocations(json.dumps(body), "application/json", model, model.metadata.get_input_schema())
        rows = json.loads(served.response)["predictions"]
        assert len(rows) == n
        np.testing.assert_allclose(rows[0]["embedding"], by_text, atol=1e-6)
    with pytest.raises(MlflowException):
        invocations(json.dumps({"inputs": {"image": str(path)}}), "application/json", model, None)
    assert model.metadata.metadata == {"input_columns": ["text", "image"]}
    assert [column.name for column in model.metadata.get_output_schema().inputs] == ["embedding"]


def test_a_package_that_scores_photos_gives_a_column_of_scores(
    server: Server, run_id: str, model_name: str, tmp_path: Path
) -> None:
    config = MarkDetectorConfig(image=ImageTowerConfig(name="test_convnext"), head=TilesConfig(stages=(0, 1), tiles=2))
    preprocessing = Preprocessing(size=32)
    scorer = MarkScorer("scores", config, preprocessing, MarkDetector(config, preprocessing))
    scorer.save(tmp_path / "package", "# test", {})
    version = register(run_id, model_name, tmp_path / "package")
    model, photo = mlflow.pyfunc.load_model(f"models:/{model_name}@candidate"), _photo()
    from shoplens.datasets.images import decode

    expected = scorer.score_images(preprocessing(decode(photo).image)[None])[0]
    assert model.predict(pd.DataFrame({"image": [photo]}))["score"][0] == pytest.approx(expected, abs=1e-6)
    assert [column.name for column in model.metadata.signature.outputs.inputs] == ["score"]
    tags = mlflow.MlflowClient().get_model_version(model_name, str(version)).tags
    assert json.loads(tags["capabilities"]) == ["score_image"]


def test_a_package_that_reads_photos_alone_needs_no_tokenizer_and_refuses_texts(
    server: Server, run_id: str, model_name: str, tmp_path: Path
) -> None:
    config = SimilarConfig(image=ImageTowerConfig(name="test_efficientnet"), dim=16, head=HeadConfig(dim=8))
    preprocessing = Preprocessing(size=32)
    embedder = SimilarEmbedder("similar", config, preprocessing, SimilarEncoder(config, preprocessing))
    embedder.save(tmp_path / "package", "# test", {})
    register(run_id, model_name, tmp_path / "package")
    model, photo = mlflow.pyfunc.load_model(f"models:/{model_name}@candidate"), _photo()
    from shoplens.datasets.images import decode

    expected = embedder.encode_images(embedder.preprocess(decode(photo).image)[None])[0]
    answer = model.predict(pd.DataFrame({"image": [photo]}))["embedding"]
    np.testing.assert_allclose(answer[0], expected, atol=1e-6)
    with pytest.raises(ShoplensError, match="row 1: give an image; the row has none of these"):
        model.predict(pd.DataFrame({"text": [None, "red dress"], "image": [photo, None]}))
