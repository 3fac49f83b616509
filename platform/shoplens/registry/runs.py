"""MLflow runs: the driver starts and finishes them, rank 0 writes curves while training."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol

import httpx
import yaml
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Dataset, DatasetInput, Metric, Param
from mlflow.utils.validation import (
    MAX_DATASET_DIGEST_SIZE,
    MAX_ENTITY_KEY_LENGTH,
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
)
from typing_extensions import Self

from shoplens.errors import ShoplensError
from shoplens.registry import provenance

log = logging.getLogger(__name__)
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
logging.getLogger("mlflow").setLevel(logging.WARNING)

MAX_BUFFERED = 500_000
"""Points that a `MetricLog` keeps while the server is away; further points are counted as lost."""


class DatasetInfo(Protocol):
    """The facts of a dataset that a run records; `shoplens.datasets.format.Dataset` has them."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def path(self) -> str: ...


def client(tracking_uri: str | None = None) -> MlflowClient:
    """Client of `tracking_uri`, or of `MLFLOW_TRACKING_URI`.

    Raises ShoplensError if neither is given, or if no server answers. Without an address MLflow would make a database
    in the current directory, which differs from worker to worker.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise ShoplensError(
            "MLFLOW_TRACKING_URI is not set: start the platform with `shoplens up clusters/local.yaml` "
            "or set it to your MLflow server, such as http://127.0.0.1:5000"
        )
    fault = _unreachable(uri)
    if fault:
        raise ShoplensError(
            f"the MLflow server at {uri} does not answer ({fault}): start it with `shoplens up`, "
            "or set MLFLOW_TRACKING_URI to one that runs"
        )
    return MlflowClient(tracking_uri=uri)


def _unreachable(uri: str) -> str | None:
    """Why the server does not answer, or None. Asked once with a timeout of 5 s; MLflow's own retries take minutes."""
    if not uri.startswith(("http://", "https://")):
        return None
    try:
        httpx.get(f"{uri.rstrip('/')}/health", timeout=5, verify=uri.startswith("https"))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return str(error) or type(error).__name__
    return None


def start_run(
    experiment: str,
    name: str,
    config: Mapping[str, Any],
    dataset: DatasetInfo,
    tags: Mapping[str, str] | None = None,
    *,
    tracking_uri: str | None = None,
) -> str:
    """Starts a run that records everything needed to repeat it; returns its id.

    config   plain data (`model_dump(mode="json")`). It becomes the artifact `config.yaml` and, flattened, parameters;
             values longer than MLflow's limit are cut there

    Also recorded: the dataset as input and tags, the seed, library versions, git commit, Ray job submission id, user.
    """
    tracking = client(tracking_uri)
    entries = _provenance_tags() | {
        "dataset_name": dataset.name,
        "dataset_digest": dataset.digest,
        "dataset_path": dataset.path,
    }
    if "seed" in config:
        entries["seed"] = str(config["seed"])
    entries |= tags or {}
    run = tracking.create_run(
        _experiment_id(tracking, experiment),
        run_name=name,
        tags={key: _cut(value, MAX_TAG_VAL_LENGTH) for key, value in entries.items()},
    )
    run_id: str = run.info.run_id
    params = [Param(metric_key(key), _cut(value, MAX_PARAM_VAL_LENGTH)) for key, value in flatten(config).items()]
    for start in range(0, len(params), MAX_PARAMS_TAGS_PER_BATCH):
        tracking.log_batch(run_id, params=params[start : start + MAX_PARAMS_TAGS_PER_BATCH])
    source = Dataset(dataset.name, dataset.digest[:MAX_DATASET_DIGEST_SIZE], "local", json.dumps({"uri": dataset.path}))
    tracking.log_inputs(run_id, [DatasetInput(source)])
    tracking.log_text(run_id, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), "config.yaml")
    return run_id


def take_up(run_id: str, config: Mapping[str, Any], *, tracking_uri: str | None = None) -> None:
    """Marks an interrupted run as running again.

    Raises ShoplensError if there is no such run, or naming the first setting that differs from the run's own.
    """
    tracking = client(tracking_uri)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = tracking.download_artifacts(run_id, "config.yaml", scratch)
            before = flatten(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except (MlflowException, OSError) as error:
        raise ShoplensError(f"there is no run {run_id} to go on with: {error}") from error
    now = flatten(config)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ShoplensError(
                f"run {run_id} was configured with {key}={before.get(key)}, not {now.get(key)}: "
                "go on with the same settings, or start a new run"
            )
    tracking.update_run(run_id, status="RUNNING")


def finish(
    run_id: str,
    status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED",
    *,
    tracking_uri: str | None = None,
) -> None:
    client(tracking_uri).set_terminated(run_id, status)


def metric_key(name: str) -> str:
    """A metric's name as MLflow accepts it: `test/text_to_image/recall@10` -> `test/text_to_image/recall_at_10`."""
    return re.sub(r"[^\w.\- /]", "_", name.replace("@", "_at_"))[:MAX_ENTITY_KEY_LENGTH]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}, "c": [1, 2]}` -> `{"a.b": "1", "c": "[1, 2]"}`."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, str):
            flat[f"{prefix}{key}"] = value
        else:
            flat[f"{prefix}{key}"] = json.dumps(value, ensure_ascii=False, default=str)
    return flat


def _cut(value: str, length: int) -> str:
    return value if len(value) <= length else f"{value[: length - 1]}…"


def _provenance_tags() -> dict[str, str]:
    tags = {f"version.{library}": version for library, version in provenance.versions().items()}
    tags["mlflow.user"] = provenance.who()
    state = provenance.git_state()
    tags["git_commit"] = state[0] if state else "unknown"
    if state:
        tags["mlflow.source.git.commit"] = state[0]
    if state and state[1] is not None:
        tags["git_dirty"] = str(state[1]).lower()
    if submission := provenance.submission_id():
        tags["ray_job_submission_id"] = submission
    return tags


def _experiment_id(tracking: MlflowClient, name: str) -> str:
    experiment = tracking.get_experiment_by_name(name)
    if experiment is None:
        try:
            return tracking.create_experiment(name)
        except MlflowException as error:  # made by another run in between
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return _experiment_id(tracking, name)
    if experiment.lifecycle_stage != "active":
        raise ShoplensError(
            f"the MLflow experiment {name!r} was deleted: restore it with "
            f"`mlflow experiments restore -x {experiment.experiment_id}`, or name another"
        )
    return experiment.experiment_id


class MetricLog:
    """Curves of a run, sent by a thread, so that a slow or absent server does not hold up training.

    While the server is away, points are kept and sent later; each absence is reported once. A worker that restarts
    from a checkpoint repeats steps. Points that the run already has are not sent again, so a curve has one point a step.

        with MetricLog(run_id) as curves:
            curves.log({"train/loss": 0.3}, step=7)
    """

    def __init__(self, run_id: str, *, tracking_uri: str | None = None, every: float = 2.0) -> None:
        """`every`: seconds between sendings. Raises ShoplensError without a tracking URI, but never later."""
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            raise ShoplensError("MLFLOW_TRACKING_URI is not set, so there is nowhere to log the curves of this run")
        self._uri, self._run_id, self._every = uri, run_id, every
        self._client = MlflowClient(tracking_uri=uri)
        self._points: deque[Metric] = deque()
        self._lost = 0
        self._recorded: dict[str, set[int]] | None = None
        self._away = False
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"metrics-{run_id[:8]}", daemon=True)
        self._thread.start()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Queues the values and returns at once. Non-finite values are kept."""
        now = int(time.time() * 1000)
        with self._lock:
            for name, value in metrics.items():
                if len(self._points) < MAX_BUFFERED:
                    self._points.append(Metric(metric_key(name), float(value), now, step))
                else:
                    self._lost += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, timeout: float = 30.0) -> int:
        """Sends the remaining points within `timeout` s; returns and logs how many were lost."""
        self._closing.set()
        self._thread.join(timeout)
        lost = len(self._points) + self._lost
        if lost:
            log.error(
                "%d metric points of run %s never reached the MLflow server at %s",
                lost,
                self._run_id,
                self._uri,
            )
        return lost

    def _run(self) -> None:
        while not self._closing.wait(self._every):
            self._send()
        for pause in (1, 3, 0):
            if self._send():
                return
            time.sleep(pause)

    def _send(self) -> bool:
        """Sends the buffer, oldest first; True once it is empty."""
        while self._points:
            with self._lock:
                batch = list(islice(self._points, MAX_METRICS_PER_BATCH))
            fault = _unreachable(self._uri)
            try:
                if fault is None:
                    fresh = [point for point in batch if not self._has(point)]
                    if fresh:
                        self._client.log_batch(self._run_id, metrics=fresh)
            except Exception as error:  # whatever MLflow raises, training goes on
                fault = str(error)
            if fault is not None:
                if not self._away:
                    log.warning("cannot log metrics to %s (%s): kept, and tried again", self._uri, fault)
                self._away = True
                return False
            if self._away:
                log.warning("the MLflow server at %s answers again", self._uri)
                self._away = False
            with self._lock:
                for _ in batch:
                    self._points.popleft()
        return True

    def _has(self, point: Metric) -> bool:
        if self._recorded is None:
            self._recorded = {}
            for key in self._client.get_run(self._run_id).data.metrics:
                history = self._client.get_metric_history(self._run_id, key)
                self._recorded[key] = {recorded.step for recorded in history}
        return point.step in self._recorded.get(point.key, ())
