"""The cluster file: one YAML file describes one cluster.

It says how to reach or start Ray and MLflow, where storage is, what a training worker gets, and, under `serve:`, what
Ray Serve runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    ByteSize,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    PrivateAttr,
    field_validator,
    model_validator,
)

from shoplens.cluster.loopback import ADDRESS
from shoplens.cluster.serve_section import serve_faults
from shoplens.config import Config, ConfigError, read_yaml, validate

DEFAULT_FILE = "clusters/local.yaml"
CHECKOUT = Path(__file__).resolve().parents[3]

Port = Annotated[int, Field(ge=1024, le=65535)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^/\s]+$")]


class Ray(Config):
    """Where Ray is. Without `address`, `shoplens up` starts a head node on this machine, on 127.0.0.1 only."""

    address: HttpUrl | None = Field(
        default=None,
        description="Dashboard of a running Ray cluster, such as http://head:8265. Not set: start one here.",
    )
    working_dir: str | None = Field(
        default=None,
        pattern=r"^(local|gs|s3|https|azure|abfss)://",
        description="Where the nodes of a running cluster find the code: local:///opt/shoplens for a folder in their "
        "image, or the URI of a zip file.",
    )
    num_cpus: PositiveInt | None = Field(
        default=None,
        description="Logical CPUs that Ray offers to workers and replicas. Not set: the CPUs of the machine.",
    )
    num_gpus: NonNegativeInt | None = Field(
        default=None, description="GPUs that Ray offers. Not set: the GPUs of the machine."
    )
    object_store_memory: Annotated[ByteSize, Field(ge=80 * 2**20)] = Field(
        default=ByteSize(512 * 2**20),
        description="Shared memory for data between workers, such as 512MiB (the default). At least 80MiB.",
    )
    gcs_port: Port = Field(default=6379, description="Port of Ray's control store.")
    dashboard_port: Port = Field(
        default=8265, description="Port of Ray's dashboard, which also takes jobs and deployments."
    )
    replica_ports: Port | None = Field(
        default=None,
        le=65435,
        description="First of 100 ports for Serve replicas. Not set: the first free block from 30000.",
    )


class Mlflow(Config):
    """Where MLflow is. Without `uri`, `shoplens up` starts a server on this machine, on 127.0.0.1 only."""

    uri: HttpUrl | None = Field(
        default=None, description="Running MLflow server, such as http://mlflow:5000. Not set: start one here."
    )
    port: Port = Field(default=5000, description="Port of the server that `shoplens up` starts.")


class TrainWorkers(Config):
    """What `workloads.train` requests from Ray.

    Leave at least one CPU of the cluster free for Ray Data. Otherwise it cannot feed the workers, and training hangs.
    """

    num_workers: PositiveInt = Field(default=1, description="Training workers, each with a shard of the batch.")
    use_gpu: bool = Field(default=False, description="Give each worker one GPU.")
    resources_per_worker: dict[str, NonNegativeFloat] = Field(
        default={"CPU": 1}, description="Ray resources of one worker, such as {GPU: 1, CPU: 4}."
    )


class Pod(Config):
    """Resources of one pod, requested and limited to the same amount."""

    cpu: PositiveInt = Field(description="CPUs.")
    memory: str = Field(
        pattern=r"^[0-9]+(Mi|Gi|Ti|M|G|T)$", description="Memory in the notation of Kubernetes, such as 8Gi."
    )
    gpu: NonNegativeInt = Field(default=0, description="NVIDIA GPUs.")


class WorkerGroup(Pod):
    """A group of identical Ray worker pods."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$", description="Name of the group, such as train.")
    replicas: NonNegativeInt = Field(default=1, description="Pods at the start.")
    min_replicas: NonNegativeInt = Field(default=0, description="Fewest pods that an autoscaler may leave.")
    max_replicas: NonNegativeInt = Field(default=4, description="Most pods that an autoscaler may start.")

    @model_validator(mode="after")
    def _in_order(self) -> WorkerGroup:
        if not self.min_replicas <= self.replicas <= self.max_replicas:
            raise ValueError("write min_replicas <= replicas <= max_replicas")
        return self


class Kubernetes(Config):
    """What `shoplens manifests` needs beside the rest of the file."""

    image: str = Field(description="Container image with Python, shoplens, its dependencies and this checkout.")
    namespace: str = Field(
        default="default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", description="Namespace of the RayService."
    )
    code: str = Field(default="/opt/shoplens", pattern="^/", description="Folder of the checkout in the image.")
    storage_claim: str | None = Field(
        default=None, description="PersistentVolumeClaim (ReadWriteMany), mounted in every pod at `storage`."
    )
    auth_secret: str | None = Field(
        default=None,
        description="Secret with the key auth_token, for Ray's token authentication. Not set: KubeRay creates one.",
    )
    head: Pod = Field(description="Resources of the head pod.")
    workers: tuple[WorkerGroup, ...] = Field(min_length=1, description="Worker groups; at least one.")


class Cluster(Config):
    """A checked cluster file. Its relative paths start at the project's root (see `root`)."""

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$", description="Name of the cluster, such as local."
    )
    storage: str = Field(
        default=".shoplens",
        description="Folder or URI for runs, packages, indexes, caches and logs. Every node must reach it.",
    )
    ray: Ray = Field(default=Ray(), description="Where Ray is, or how to start it.")
    mlflow: Mlflow = Field(default=Mlflow(), description="Where MLflow is, or how to start it.")
    train: TrainWorkers = Field(default=TrainWorkers(), description="Workers of a training job.")
    env: dict[str, str] = Field(default={}, description="Environment variables to add to every process on the cluster.")
    serve: dict[str, Any] = Field(
        default={},
        description="Ray Serve's deployment file (ServeDeploySchema): http_options, applications and more.",
    )
    kubernetes: Kubernetes | None = Field(default=None, description="Only for `shoplens manifests`.")

    _file: Path = PrivateAttr(default=Path(DEFAULT_FILE))

    @field_validator("env", mode="before")
    @classmethod
    def _env_values_are_text(cls, env: Any) -> Any:
        if isinstance(env, Mapping):
            return {key: str(value) if type(value) in (int, float) else value for key, value in env.items()}
        return env

    @model_validator(mode="after")
    def _hangs_together(self) -> Cluster:
        if self.kubernetes and not self.mlflow.uri:
            raise ValueError("pods cannot reach a server on this machine: set mlflow.uri to a server that they reach")
        if (self.kubernetes or self.ray.address) and not re.match(r"/|[a-z0-9]+://", self.storage):
            raise ValueError("other machines need an absolute path or a URI: set storage to one that they all reach")
        if self.ray.address and not self.mlflow.uri:
            raise ValueError("a running Ray cluster needs an MLflow server that it can reach: set mlflow.uri")
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, check_serve: bool = True) -> Cluster:
        """Reads and checks a cluster file.

        check_serve   check the `serve:` section against Ray Serve's schema, which takes a second or two to import. What
                      deploys it needs the check.

        Raises ConfigError with one line for every mistake: the key, what is wrong, and the nearest known key.
        """
        cluster = validate(cls, read_yaml(Path(path)), str(path))
        faults = list(serve_faults(cluster.serve)) if check_serve or not _has_shape(cluster.serve) else []
        if faults:
            raise ConfigError("\n".join([f"{path} cannot be used:", *(f"  {fault}" for fault in faults)]))
        cluster._file = Path(path).resolve()
        return cluster

    @property
    def file(self) -> Path:
        return self._file

    @property
    def root(self) -> Path:
        """The project's root: the nearest folder above the file that holds `workloads`.

        If there is none, the same above the working directory, else the checkout that shoplens is imported from.
        """
        for start in (self._file.parent, Path.cwd()):
            for folder in (start, *start.parents):
                if (folder / "workloads").is_dir():
                    return folder
        return CHECKOUT

    @property
    def storage_path(self) -> str:
        """`storage` as an absolute path, or the URI unchanged."""
        return self.storage if "://" in self.storage else str(self.root / self.storage)

    @property
    def state_dir(self) -> Path:
        """Folder on this machine for the cluster's `cluster.json` (process ids) and logs."""
        if "://" in self.storage or self.ray.address:
            return self.root / ".shoplens" / self.name
        return Path(self.storage_path)

    @property
    def dashboard(self) -> str:
        """Address of Ray's dashboard, which also answers the job API and Serve's API."""
        return self.ray.address or f"http://{ADDRESS}:{self.ray.dashboard_port}"

    @property
    def mlflow_uri(self) -> str:
        return self.mlflow.uri or f"http://{ADDRESS}:{self.mlflow.port}"

    @property
    def endpoint(self) -> str:
        """Address of the Serve applications."""
        options = self.serve_config["http_options"]
        scheme = "https" if options.get("ssl_certfile") else "http"
        if self.ray.address:
            host = re.sub(r"^https?://|:\d+$", "", self.ray.address)
        else:
            host = ADDRESS if options["host"] in ("0.0.0.0", "localhost") else options["host"]
        return f"{scheme}://{host}:{options['port']}{options.get('root_path', '')}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of every job and application on the cluster."""
        return {
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "SHOPLENS_STORAGE": self.storage_path,
            "RAY_USAGE_STATS_ENABLED": "0",
            **self.env,
        }

    @property
    def job_runtime_env(self) -> dict[str, Any]:
        """Runtime environment that `ray job submit --working-dir .`, from the project's root, must pass.

        Empty for a head node that `shoplens up` starts: its jobs inherit all of it.
        """
        if self.ray.address is None:
            return {}
        file = os.path.relpath(self._file, self.root)
        return {"env_vars": {**self.environment, "SHOPLENS_CLUSTER": file, "PYTHONPATH": "platform"}}

    @property
    def serve_config(self) -> dict[str, Any]:
        """The `serve:` section with defaults: 127.0.0.1 on a head node started here, else all interfaces."""
        host = ADDRESS if not (self.ray.address or self.kubernetes) else "0.0.0.0"
        options = {"host": host, "port": 8000, **(self.serve.get("http_options") or {})}
        return {
            "proxy_location": "HeadOnly" if host == ADDRESS else "EveryNode",
            "applications": [],
            **self.serve,
            "http_options": options,
        }


def _has_shape(serve: Mapping[str, Any]) -> bool:
    """Whether a `serve:` section has what `serve_config` and `status` read of it, in the right types."""
    options, applications = serve.get("http_options") or {}, serve.get("applications", [])
    return (
        isinstance(options, Mapping)
        and isinstance(applications, list)
        and all(isinstance(one, Mapping) and isinstance(one.get("name", ""), str) for one in applications)
    )


def current(file: str | os.PathLike[str] | None = None, *, check_serve: bool = True) -> Cluster:
    """The cluster of `file`, else of the environment variable SHOPLENS_CLUSTER, else of `clusters/local.yaml`.

    `check_serve` as in `Cluster.load`. That file is searched in the working directory and its parents, then in the checkout of shoplens.
    """
    if file is None:
        file = os.environ.get("SHOPLENS_CLUSTER")
    if file is None:
        here = Path.cwd()
        near = (folder / DEFAULT_FILE for folder in (here, *here.parents, CHECKOUT))
        file = next((path for path in near if path.is_file()), DEFAULT_FILE)
    return Cluster.load(file, check_serve=check_serve)


def attach(file: str | os.PathLike[str] | None = None) -> Cluster:
    """Points this process at the cluster's MLflow and storage. Environment variables that are set stay as they are."""
    cluster = current(file, check_serve=False)
    for name, value in {**cluster.environment, "SHOPLENS_CLUSTER": str(cluster.file)}.items():
        os.environ.setdefault(name, value)
    return cluster
