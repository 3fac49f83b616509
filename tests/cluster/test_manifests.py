from __future__ import annotations

from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from shoplens.cluster.file import Cluster
from shoplens.cluster.manifests import manifests
from shoplens.config import ConfigError
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    service = yaml.safe_load(manifests(Cluster.load(ROOT / "clusters" / "kubernetes.yaml")))
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    assert service["metadata"] == {"name": "shoplens", "namespace": "ml"}
    return dict(service["spec"])


def test_serve_takes_its_configuration(spec: dict[str, Any]) -> None:
    config = yaml.safe_load(spec["serveConfigV2"])
    schema = ServeDeploySchema.model_validate(config)
    assert schema.http_options.host == "0.0.0.0"
    runtime_env = schema.applications[0].runtime_env
    assert runtime_env["working_dir"] == "local:///opt/shoplens"
    assert runtime_env["env_vars"]["PYTHONPATH"] == "/opt/shoplens/platform"
    assert runtime_env["env_vars"]["MLFLOW_TRACKING_URI"] == "http://mlflow.ml.svc.cluster.local:5000"


def test_pods_follow_the_file(spec: dict[str, Any]) -> None:
    cluster = spec["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert set(groups) == {"serve", "train"}
    assert (groups["serve"]["minReplicas"], groups["serve"]["maxReplicas"]) == (2, 8)
    for template in [cluster["headGroupSpec"]["template"], *(group["template"] for group in groups.values())]:
        (container,) = template["spec"]["containers"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/mnt/shoplens"}
        assert template["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == "shoplens-storage"
        variables = {entry["name"]: entry["value"] for entry in container["env"]}
        assert variables["SHOPLENS_CLUSTER"] == "/opt/shoplens/clusters/kubernetes.yaml"
        assert all(isinstance(value, str) for value in variables.values())
    (trainer,) = groups["train"]["template"]["spec"]["containers"]
    assert trainer["resources"]["limits"] == {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "4"}


def test_a_file_without_the_section_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no section `kubernetes:`"):
        manifests(Cluster.load(ROOT / "clusters" / "local.yaml"))
