from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.schema import DeploymentSchema, HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

from shoplens.cluster.file import Cluster, TrainWorkers, attach, current
from shoplens.cluster.serve_section import serve_faults
from shoplens.config import ConfigError
from tests.conftest import ROOT

FILES = sorted((ROOT / "clusters").glob("*.yaml"))


def write(folder: Path, **keys: Any) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump({"name": "test", **keys}))
    return path


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_cluster_file_is_valid_for_us_and_for_ray(file: Path) -> None:
    cluster = Cluster.load(file)
    assert cluster.root == ROOT
    schema = ServeDeploySchema.model_validate(cluster.serve_config)
    assert [application.name for application in schema.applications] == ["shoplens"]
    assert set(cluster.environment) >= {"MLFLOW_TRACKING_URI", "SHOPLENS_STORAGE"}


def test_the_local_file_is_on_loopback_and_on_the_ports_that_the_documents_name() -> None:
    cluster = Cluster.load(ROOT / "clusters" / "local.yaml")
    assert cluster.dashboard == "http://127.0.0.1:8265"
    assert cluster.mlflow_uri == "http://127.0.0.1:5000"
    assert cluster.endpoint == "http://127.0.0.1:8000"
    assert cluster.storage_path == str(ROOT / ".shoplens")


def test_a_training_worker_leaves_cpus_for_ray_data_and_the_replicas() -> None:
    cluster = Cluster.load(ROOT / "clusters" / "local.yaml")
    replicas = sum(
        (deployment.get("num_replicas") or 1) * deployment.get("ray_actor_options", {}).get("num_cpus", 1)
        for application in cluster.serve["applications"]
        for deployment in application["deployments"]
    )
    training = 2 * cluster.train.resources_per_worker["CPU"]
    assert cluster.ray.num_cpus is not None and cluster.ray.num_cpus - replicas - training >= 2


def test_defaults_of_a_minimal_file(tmp_path: Path) -> None:
    cluster = Cluster.load(write(tmp_path, serve={"http_options": {"port": 18000}}))
    assert cluster.serve_config["http_options"] == {"host": "127.0.0.1", "port": 18000}
    assert cluster.endpoint == "http://127.0.0.1:18000"
    assert cluster.train == TrainWorkers(num_workers=1)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"storrage": "x"}, "storrage: unknown key; did you mean storage?"),
        ({"ray": {"dashbord_port": 1}}, "ray.dashbord_port: unknown key; did you mean dashboard_port?"),
        ({"train": {"num_worker": 2}}, "train.num_worker: unknown key; did you mean num_workers?"),
        (
            {"ray": {"dashboard_port": 80}},
            "ray.dashboard_port: Input should be greater than or equal to 1024",
        ),
        ({"ray": {"address": "head:8265"}}, "ray.address"),
        ({"serve": {"aplications": []}}, "serve.aplications: unknown key; did you mean applications?"),
        (
            {"serve": {"http_options": {"prot": 1}}},
            "serve.http_options.prot: unknown key; did you mean port?",
        ),
        ({"serve": {"logging_config": {"log_levl": "INFO"}}}, "did you mean log_level?"),
        ({"serve": {"applications": [{"name": "a", "import_path": "nowhere"}]}}, "invalid import path"),
        ({"kubernetes": {"image": "i", "head": {"cpu": 1, "memory": "1Gi"}, "workers": []}}, "workers"),
        (
            {"ray": {"address": "http://head:8265"}, "mlflow": {"uri": "http://m:5000"}},
            "absolute path or a URI",
        ),
        ({"ray": {"address": "http://head:8265"}, "storage": "s3://b/s"}, "set mlflow.uri"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Cluster.load(write(tmp_path, **keys))
    assert said in str(caught.value)
    assert "cluster.yaml" in str(caught.value)


def application(**keys: Any) -> dict[str, Any]:
    return {"applications": [{"name": "a", "import_path": "m:app", **keys}]}


@pytest.mark.parametrize(
    ("section", "key", "meant"),
    [
        (application(rout_prefix="/"), "applications.a.rout_prefix", "route_prefix"),
        (
            application(deployments=[{"name": "d", "num_repliacs": 2}]),
            "applications.a.deployments.d.num_repliacs",
            "num_replicas",
        ),
        (
            application(deployments=[{"name": "d", "autoscaling_config": {"min_replica": 2}}]),
            "applications.a.deployments.d.autoscaling_config.min_replica",
            "min_replicas",
        ),
        (
            application(deployments=[{"name": "d", "ray_actor_options": {"num_cpu": 1}}]),
            "applications.a.deployments.d.ray_actor_options.num_cpu",
            "num_cpus",
        ),
        (application(runtime_env={"env_var": {"A": "1"}}), "applications.a.runtime_env.env_var", "env_vars"),
    ],
)
def test_keys_that_ray_would_ignore_are_refused(section: dict[str, Any], key: str, meant: str) -> None:
    ServeDeploySchema.model_validate(section)  # Ray takes it, and does not do what was meant
    assert list(serve_faults(section)) == [f"serve.{key}: unknown key; did you mean {meant}?"]


KEYS = {
    "applications": sorted(ServeApplicationSchema.model_fields),
    "deployments": sorted(DeploymentSchema.model_fields),
    "http_options": sorted(HTTPOptionsSchema.model_fields),
}


@given(st.sampled_from(sorted(KEYS)), st.data())
def test_no_slip_of_one_letter_passes(level: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(KEYS[level]))
    place = data.draw(st.integers(0, len(key) - 1))
    slip = key[:place] + key[place + 1 :]
    if slip in KEYS[level]:
        return
    section = {
        "applications": application(**{slip: 1}),
        "deployments": application(deployments=[{"name": "d", slip: 1}]),
        "http_options": {"http_options": {slip: 1}},
    }[level]
    (fault,) = serve_faults(section)
    assert f".{slip}: unknown key" in fault


def test_free_sections_may_hold_anything() -> None:
    section = application(
        args={"models": ["eclip"], "anything": {"deep": 1}},
        deployments=[{"name": "d", "user_config": {"x": {"y": 1}}, "ray_actor_options": {"resources": {"disk": 1}}}],
    )
    assert list(serve_faults(section)) == []


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"there is no file clusters/lokal[.]yaml"):
        Cluster.load("clusters/lokal.yaml")


def test_current_goes_by_argument_then_environment_then_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOPLENS_CLUSTER", raising=False)
    monkeypatch.chdir(ROOT / "tests")
    assert current().file == ROOT / "clusters" / "local.yaml"
    monkeypatch.setenv("SHOPLENS_CLUSTER", str(write(tmp_path)))
    assert current().name == "test"
    assert current(ROOT / "clusters" / "gpu.yaml").name == "gpu"


def test_attach_fills_in_what_the_environment_leaves_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in (
        "SHOPLENS_STORAGE",
        "SHOPLENS_CLUSTER",
        "RAY_USAGE_STATS_ENABLED",
        "MLFLOW_DISABLE_TELEMETRY",
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    attach(write(tmp_path, storage=str(tmp_path / "s")))
    assert os.environ["SHOPLENS_STORAGE"] == str(tmp_path / "s")
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://elsewhere:5000"


def test_a_job_inherits_everything_here_and_is_told_everything_elsewhere() -> None:
    assert Cluster.load(ROOT / "clusters" / "local.yaml").job_runtime_env == {}
    variables = Cluster.load(ROOT / "clusters" / "gpu.yaml").job_runtime_env["env_vars"]
    assert variables["PYTHONPATH"] == "platform"
    assert variables["SHOPLENS_CLUSTER"] == "clusters/gpu.yaml"
    assert variables["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"


@pytest.mark.parametrize(
    "serve", [{"applications": "shop"}, {"applications": [7]}, {"http_options": [1]}, {"applications": [{"name": 3}]}]
)
def test_a_serve_section_that_cannot_be_read_is_refused_though_nothing_is_deployed(
    tmp_path: Path, serve: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used:\n  serve[.]"):
        Cluster.load(write(tmp_path, serve=serve), check_serve=False)


def test_only_what_deploys_checks_the_serve_section_against_ray(tmp_path: Path) -> None:
    misspelt = write(tmp_path, serve={"applicatons": []})
    assert Cluster.load(misspelt, check_serve=False).serve_config["applications"] == []
    with pytest.raises(ConfigError, match="did you mean applications"):
        Cluster.load(misspelt)
