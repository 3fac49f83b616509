"""KubeRay manifest (RayService, KubeRay v1.7) of a cluster file with a `kubernetes:` section."""

from __future__ import annotations

from typing import Any

import yaml

from shoplens.cluster.deploy import deployment
from shoplens.cluster.file import Cluster, Kubernetes, Pod
from shoplens.config import ConfigError


def manifests(cluster: Cluster) -> str:
    """The manifest as one YAML document. Raises ConfigError if the file has no section `kubernetes:`."""
    if cluster.kubernetes is None:
        raise ConfigError(f"{cluster.file} has no section `kubernetes:`: add one as in clusters/kubernetes.yaml")
    return yaml.dump(ray_service(cluster, cluster.kubernetes), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as a block (`|`), which people can read."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def ray_service(cluster: Cluster, kubernetes: Kubernetes) -> dict[str, Any]:
    """The RayService: its RayCluster, and the Serve configuration of the cluster file."""
    import ray

    serve = deployment(cluster)
    for application in serve["applications"]:
        application["runtime_env"].setdefault("working_dir", f"local://{kubernetes.code}")
        application["runtime_env"]["env_vars"].setdefault("PYTHONPATH", f"{kubernetes.code}/platform")
    auth = {"mode": "token", **({"secretName": kubernetes.auth_secret} if kubernetes.auth_secret else {})}
    port = serve["http_options"]["port"]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": cluster.name, "namespace": kubernetes.namespace},
        "spec": {
            "serveConfigV2": yaml.safe_dump(serve, sort_keys=False, allow_unicode=True),
            "rayClusterConfig": {
                "rayVersion": ray.__version__,
                "authOptions": auth,
                "headGroupSpec": {
                    "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
                    "template": _pod(cluster, kubernetes, "ray-head", kubernetes.head, port),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": group.name,
                        "replicas": group.replicas,
                        "minReplicas": group.min_replicas,
                        "maxReplicas": group.max_replicas,
                        "rayStartParams": {},
                        "template": _pod(cluster, kubernetes, "ray-worker", group, port),
                    }
                    for group in kubernetes.workers
                ],
            },
        },
    }


def _pod(cluster: Cluster, kubernetes: Kubernetes, container: str, pod: Pod, port: int) -> dict[str, Any]:
    head = container == "ray-head"
    resources = {
        "cpu": str(pod.cpu),
        "memory": pod.memory,
        **({"nvidia.com/gpu": str(pod.gpu)} if pod.gpu else {}),
    }
    environment = {
        **cluster.environment,
        "SHOPLENS_CLUSTER": f"{kubernetes.code}/clusters/{cluster.file.name}",
        "PYTHONPATH": f"{kubernetes.code}:{kubernetes.code}/platform",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
    }
    spec: dict[str, Any] = {
        "name": container,
        "image": kubernetes.image,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "ports": [{"name": "serve", "containerPort": port}],
    }
    if head:
        spec["ports"] += [
            {"name": "gcs-server", "containerPort": 6379},
            {"name": "dashboard", "containerPort": 8265},
        ]
    template: dict[str, Any] = {"containers": [spec]}
    if kubernetes.storage_claim:
        spec["volumeMounts"] = [{"name": "storage", "mountPath": cluster.storage}]
        template["volumes"] = [{"name": "storage", "persistentVolumeClaim": {"claimName": kubernetes.storage_claim}}]
    return {"spec": template}
