"""The cluster file: how to reach or start Ray, where storage and MLflow are, what a training worker gets,
and, under `serve:`, Ray Serve's own deployment schema. One YAML file describes one cluster.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    ByteSize,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from shoplens.cluster.loopback import ADDRESS
from shoplens.config import Config, ConfigError, read_yaml, validate

DEFAULT_FILE = "clusters/local.yaml"

Port = Annotated[int, Field(ge=1024, le=65535)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^/\s]+$")]


class Ray(Config):
    """Where Ray is. Without `address`, `shoplens up` starts a head node on this machine, on loopback only."""

    address: HttpUrl | None = Field(
        default=None, description="dashboard of a running cluster, such as http://head:8265"
    )
    working_dir: str | None = Field(
        default=None,
        pattern=r"^(local|gs|s3|https|azure|abfss)://",
        description="where nodes elsewhere find the checkout: local:///path in the image, or a zip's URI",
    )
    num_cpus: PositiveInt | None = Field(
        default=None, description="logical CPUs to offer; the machine's own if not set"
    )
    num_gpus: NonNegativeInt | None = None
    object_store_memory: Annotated[ByteSize, Field(ge=80 * 2**20)] = ByteSize(512 * 2**20)
    gcs_port: Port = 6379
    dashboard_port: Port = 8265
    replica_ports: Port | None = Field(
        default=None,
        le=65435,
        description="first of 100 ports for Serve replicas; a free block above 30000 if not set",
    )


class Mlflow(Config):
    """Where MLflow is. Without `uri`, `shoplens up` starts a server on this machine, on loopback only."""

    uri: HttpUrl | None = None
    port: Port = 5000


class TrainWorkers(Config):
    """What `workloads.train` asks Ray for. Leave CPUs for Ray Data, or training waits for ever."""

    num_workers: PositiveInt = 1
    use_gpu: bool = False
    resources_per_worker: dict[str, NonNegativeFloat] = Field(default={"CPU": 1})


class Pod(Config):
    """Resources of one pod, in Kubernetes' own notation for memory."""

    cpu: PositiveInt
    memory: str = Field(pattern=r"^[0-9]+(Mi|Gi|Ti|M|G|T)$")
    gpu: NonNegativeInt = 0


class WorkerGroup(Pod):
    """A group of equal Ray worker pods."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$")
    replicas: NonNegativeInt = 1
    min_replicas: NonNegativeInt = 0
    max_replicas: NonNegativeInt = 4

    @model_validator(mode="after")
    def _in_order(self) -> WorkerGroup:
        if not self.min_replicas <= self.replicas <= self.max_replicas:
            raise ValueError("write min_replicas <= replicas <= max_replicas")
        return self


class Kubernetes(Config):
    """What `shoplens manifests` needs beyond the rest of the file."""

    image: str
    namespace: str = Field(default="default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    code: str = Field(default="/opt/shoplens", pattern="^/", description="the checkout's folder in the image")
    storage_claim: str | None = Field(
        default=None, description="PersistentVolumeClaim (ReadWriteMany) mounted at `storage`"
    )
    auth_secret: str | None = Field(
        default=None, description="Secret with key auth_token; KubeRay makes one if not set"
    )
    head: Pod
    workers: tuple[WorkerGroup, ...] = Field(min_length=1)


class Cluster(Config):
    """One cluster file, checked. Relative paths in it start at the project's root (see `root`)."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?$")
    storage: str = Field(default=".shoplens", description="folder or URI for runs, indexes, caches and logs")
    ray: Ray = Ray()
    mlflow: Mlflow = Mlflow()
    train: TrainWorkers = TrainWorkers()
    env: dict[str, str] = Field(default={}, description="further environment of every process on the cluster")
    serve: dict[str, Any] = Field(default={}, description="Ray Serve's ServeDeploySchema")
    kubernetes: Kubernetes | None = None

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
            raise ValueError("pods cannot reach a server on this machine: set mlflow.uri")
        if (self.kubernetes or self.ray.address) and not re.match(r"/|[a-z0-9]+://", self.storage):
            raise ValueError("other machines need an absolute path or a URI: set storage to one that they share")
        if self.ray.address and not self.mlflow.uri:
            raise ValueError("a cluster elsewhere needs an MLflow server that it can reach: set mlflow.uri")
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Cluster:
        """Reads and checks a cluster file, the `serve:` section included.

        Raises ConfigError naming every mistake: the key, what is wrong with it and the nearest known key.
        """
        cluster = validate(cls, read_yaml(Path(path)), str(path))
        faults = list(serve_faults(cluster.serve))
        if faults:
            raise ConfigError("\n".join([f"{path} cannot be used:", *(f"  {fault}" for fault in faults)]))
        cluster._file = Path(path).resolve()
        return cluster

    @property
    def file(self) -> Path:
        return self._file

    @property
    def root(self) -> Path:
        """The project's root: the nearest folder above the file (else above the working directory, else the
        checkout that shoplens is imported from) that holds `workloads`."""
        for start in (self._file.parent, Path.cwd()):
            for folder in (start, *start.parents):
                if (folder / "workloads").is_dir():
                    return folder
        return Path(__file__).resolve().parents[3]

    @property
    def storage_path(self) -> str:
        """`storage` as an absolute path, or as the URI that it is."""
        return self.storage if "://" in self.storage else str(self.root / self.storage)

    @property
    def state_dir(self) -> Path:
        """Where this machine keeps what it knows of the cluster: process ids and logs."""
        if "://" in self.storage or self.ray.address:
            return self.root / ".shoplens" / self.name
        return Path(self.storage_path)

    @property
    def dashboard(self) -> str:
        """Address of Ray's dashboard, job and Serve API."""
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
        """What every job and application on the cluster finds in its environment."""
        return {
            "MLFLOW_TRACKING_URI": self.mlflow_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "SHOPLENS_STORAGE": self.storage_path,
            "RAY_USAGE_STATS_ENABLED": "0",
            **self.env,
        }

    @property
    def job_runtime_env(self) -> dict[str, Any]:
        """What `ray job submit --working-dir .` from the project's root must add on a cluster elsewhere.

        On a head node started here a job inherits all of it.
        """
        if self.ray.address is None:
            return {}
        file = os.path.relpath(self._file, self.root)
        return {"env_vars": {**self.environment, "SHOPLENS_CLUSTER": file, "PYTHONPATH": "platform"}}

    @property
    def serve_config(self) -> dict[str, Any]:
        """The `serve:` section with loopback for a head node started here, and all interfaces elsewhere."""
        host = ADDRESS if not (self.ray.address or self.kubernetes) else "0.0.0.0"
        options = {"host": host, "port": 8000, **(self.serve.get("http_options") or {})}
        return {
            "proxy_location": "HeadOnly" if host == ADDRESS else "EveryNode",
            "applications": [],
            **self.serve,
            "http_options": options,
        }


def current(file: str | os.PathLike[str] | None = None) -> Cluster:
    """The cluster of `file`, else of the environment variable SHOPLENS_CLUSTER, else of `clusters/local.yaml`
    of the project that the working directory lies in."""
    if file is None:
        file = os.environ.get("SHOPLENS_CLUSTER")
    if file is None:
        here = Path.cwd()
        near = (folder / DEFAULT_FILE for folder in (here, *here.parents, Path(__file__).resolve().parents[3]))
        file = next((path for path in near if path.is_file()), DEFAULT_FILE)
    return Cluster.load(file)


def attach(file: str | os.PathLike[str] | None = None) -> Cluster:
    """Points this process at the cluster's MLflow and storage, where its environment does not yet say."""
    cluster = current(file)
    for name, value in {**cluster.environment, "SHOPLENS_CLUSTER": str(cluster.file)}.items():
        os.environ.setdefault(name, value)
    return cluster


def train_workers() -> TrainWorkers:
    """The `train:` section of the cluster that this process runs on; the defaults where it runs on none."""
    file = os.environ.get("SHOPLENS_CLUSTER")
    return Cluster.load(file).train if file else TrainWorkers()


def serve_faults(section: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes in a `serve:` section, each as one line.

    Ray Serve's own schema ignores keys that it does not know at most levels; here they are faults.
    """
    from ray.serve.schema import ServeDeploySchema

    unknown = list(_unknown_keys(ServeDeploySchema, section, "serve"))
    yield from unknown
    if unknown or not section:
        return
    try:
        ServeDeploySchema.model_validate({"applications": [], **section})
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            place = ".".join(["serve", *(str(part) for part in fault["loc"])])
            yield f"{place}: {fault['msg'].removeprefix('Value error, ')}"


def _unknown_keys(model: type[BaseModel], section: Mapping[str, Any], place: str) -> Iterator[str]:
    for key, value in section.items():
        if key not in model.model_fields:
            yield f"{place}.{key}: unknown key{_nearest(str(key), model.model_fields)}"
            continue
        if key == "runtime_env" and isinstance(value, Mapping):
            yield from _unknown_runtime_env_keys(value, f"{place}.{key}")
        inner = _model_in(model.model_fields[key].annotation)
        if inner is None:
            continue
        for at, part in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(part, Mapping):
                where = f"{place}.{key}" if at is None else f"{place}.{key}.{part.get('name', at)}"
                yield from _unknown_keys(inner, part, where)


def _unknown_runtime_env_keys(section: Mapping[str, Any], place: str) -> Iterator[str]:
    from ray.runtime_env import RuntimeEnv

    for key in section:
        if key not in RuntimeEnv.known_fields:
            yield f"{place}.{key}: unknown key{_nearest(str(key), RuntimeEnv.known_fields)}"


def _nearest(key: str, known: Any) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model in `Optional[List[Union[Dict, Model]]]` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
