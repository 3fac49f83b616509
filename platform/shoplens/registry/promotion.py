"""Promotion and rollback: an alias moves only through gates, with a record and a way back."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from mlflow import MlflowClient, MlflowException

from shoplens.config import Config, ConfigError, read_yaml, validate
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.evaluation.results import Evaluation
from shoplens.registry import provenance
from shoplens.registry.evaluations import find_evaluation, store_evaluation
from shoplens.registry.gates import Gates, NotComparable, Verdict, judge
from shoplens.registry.runs import client
from shoplens.registry.versions import ModelVersion, as_version, resolve
from shoplens.search.lists.replay import SPLIT as LISTS

Evaluate = Callable[[ModelVersion, str, str], Evaluation]
"""(version, dataset path, split) -> its evaluation there."""

KEPT_BY_SHOPLENS = ("candidate", "previous", "latest")
LOCK_SECONDS = 60.0
_HISTORY = re.compile(r"promotion/(?P<at>[^/]+)-(?P<n>\d+)")


class Decision(Config):
    """One change of an alias with its reasons, or the change that a dry run would make. Decisions are the history."""

    name: str
    alias: str
    action: Literal["promote", "rollback", "keep"]
    before: int | None
    after: int
    gate: Literal["passed", "failed", "forced", "none"]
    reason: str
    by: str
    at: str
    dataset_digest: str | None = None
    split: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    dry_run: bool = False

    @property
    def failing(self) -> list[str]:
        """Names of the metrics whose gates were not passed."""
        return [verdict.gate.metric for verdict in self.verdicts if not verdict.passed]

    def __str__(self) -> str:
        """A headline and a line for each gate."""
        before = f"{self.name}/{self.before}" if self.before else "nothing"
        after = f"{self.name}/{self.after}"
        would = "would be " if self.dry_run else ""
        if self.action == "keep":
            head = f"{after} is {self.alias} already: nothing to do"
        elif self.action == "rollback":
            head = f"{self.alias}: {would}rolled back from {before} to {after}"
        elif self.gate == "failed":
            head = f"{after} {would or 'is '}refused as {self.alias} (it stays {before})"
            head += f"; failing: {', '.join(self.failing)}"
        else:
            forced = f", forced past {', '.join(self.failing)}" if self.gate == "forced" else ""
            head = f"{after} {would or 'is now '}{self.alias}, after {before}{forced}"
        marks = {True: "pass", False: "FAIL"}
        return "\n".join(
            [head, *(f"  {marks[v.passed] if v.judged else 'skip'}  {v.gate.metric}: {v.why}" for v in self.verdicts)]
        )


class PromotionRefused(ShoplensError):
    """A gate failed. The message names it; `decision` holds every verdict."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(f"{decision}\n--force sets the alias nevertheless, and leaves a trace")
        self.decision = decision

    def __reduce__(self) -> tuple[type[PromotionRefused], tuple[Decision]]:
        return PromotionRefused, (self.decision,)


def promote(
    name: str,
    version: int,
    *,
    gates: Gates,
    evaluate: Evaluate,
    alias: str = "champion",
    reason: str = "",
    dataset: str | None = None,
    dry_run: bool = False,
    force: bool = False,
    tracking_uri: str | None = None,
) -> Decision:
    """Points `alias` at the version if it passes the gates. The version that holds the alias now is the reference.

    Both versions are judged on one split of one dataset: `dataset`, or the one the candidate was trained on. Stored
    evaluations of that dataset's digest are used; `evaluate` makes the missing ones, and they are stored. Figures
    `lists/...` are never made here: `workloads.evaluate_lists` stores them.

    Person, time, reason and verdicts become tags of the version and an entry of the history. For `champion`, the alias
    `previous` names the version that `rollback` would return to. A dry run writes nothing.

    Raises PromotionRefused if a gate fails. Raises ShoplensError if the version is unknown or failed, a gate names a
    metric that was not measured, the data has changed, or someone else moved the alias meanwhile.
    """
    _check_alias(alias)
    tracking = client(tracking_uri)
    candidate = resolve(f"{name}/{version}", tracking_uri=tracking_uri)
    holder = _holder(tracking, name, alias)
    decision = Decision(
        name=name,
        alias=alias,
        action="keep",
        before=holder.version if holder else None,
        after=candidate.version,
        gate="none",
        reason=reason,
        by=provenance.who(),
        at=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        dry_run=dry_run,
    )
    if holder and holder.version == candidate.version:
        return decision
    path, digest = _dataset(tracking, candidate, dataset)

    def evaluation_of(model: ModelVersion, again: bool = False) -> Evaluation:
        stored = None if again else find_evaluation(model, digest, gates.split, tracking_uri=tracking_uri)
        if stored is not None:
            return stored
        made = _evaluated(evaluate, model, path, digest, gates.split)
        if not dry_run:
            store_evaluation(model, made, tracking_uri=tracking_uri)
        return made

    def judged_by(model: ModelVersion, again: bool = False) -> Evaluation:
        asks_lists = [gate.metric.startswith(f"{LISTS}/") for gate in gates.gates]
        if not any(asks_lists):
            return evaluation_of(model, again)
        lists = find_evaluation(model, digest, LISTS, tracking_uri=tracking_uri)
        if lists is None:
            raise ShoplensError(
                f"a gate asks for figures of lists, and those of {model} were not judged on this data: "
                f"python -m workloads.evaluate_lists --model {model} dataset={path}"
            )
        return lists if all(asks_lists) else evaluation_of(model, again).joined(lists)

    try:
        verdicts = judge(gates.gates, judged_by(candidate), judged_by(holder) if holder else None)
    except NotComparable:  # stored by different versions of the evaluation
        assert holder is not None
        verdicts = judge(gates.gates, judged_by(candidate, again=True), judged_by(holder, again=True))
    passed = all(verdict.passed for verdict in verdicts)
    decision = decision.model_copy(
        update={
            "action": "promote",
            "gate": "passed" if passed else "forced" if force else "failed",
            "dataset_digest": digest,
            "split": gates.split,
            "verdicts": tuple(verdicts),
        }
    )
    if dry_run:
        return decision
    if decision.gate == "failed":
        raise PromotionRefused(decision)
    _carry_out(tracking, decision)
    for key, value in {
        "gate": decision.gate,
        "gate_failing": ", ".join(decision.failing),
        "promoted_as": alias,
        "promoted_at": decision.at,
        "promoted_by": decision.by,
        "promoted_from": str(holder or ""),
        "promotion_reason": reason,
    }.items():
        tracking.set_model_version_tag(name, str(version), key, value)
    return decision


def rollback(
    name: str,
    *,
    alias: str = "champion",
    reason: str = "",
    dry_run: bool = False,
    tracking_uri: str | None = None,
) -> Decision:
    """Points `alias` at the version that held it before, according to the history. Each further call goes one step back.

    Deleted versions are skipped. No gate is checked: the version passed its gates when it was promoted.
    Raises ShoplensError if there is no earlier version.
    """
    _check_alias(alias)
    tracking = client(tracking_uri)
    holder = _holder(tracking, name, alias)
    before = holder.version if holder else None
    target = _version_before(tracking, name, alias, before)
    if target is None:
        raise ShoplensError(
            f"the history of {name} knows no version before {holder}"
            if holder
            else f"nothing was ever promoted as {alias} of {name}"
        )
    decision = Decision(
        name=name,
        alias=alias,
        action="rollback",
        before=before,
        after=target,
        gate="none",
        reason=reason,
        by=provenance.who(),
        at=datetime.now(timezone.utc).isoformat(timespec="microseconds"),
        dry_run=dry_run,
    )
    if not dry_run:
        _carry_out(tracking, decision)
    return decision


def history(name: str, *, tracking_uri: str | None = None) -> list[Decision]:
    """Every promotion and rollback of the model, oldest first. Raises ShoplensError for an unknown model."""
    return _history(client(tracking_uri), name)


def _history(tracking: MlflowClient, name: str) -> list[Decision]:
    entries = []
    for key, value in _registered_tags(tracking, name).items():
        if match := _HISTORY.fullmatch(key):
            entries.append((int(match["n"]), match["at"], Decision.model_validate_json(value)))
    return [decision for _, _, decision in sorted(entries, key=lambda entry: entry[:2])]


def _registered_tags(tracking: MlflowClient, name: str) -> dict[str, str]:
    try:
        return dict(tracking.get_registered_model(name).tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise ShoplensError(f"the registry knows no model {name!r}") from None


def _carry_out(tracking: MlflowClient, decision: Decision) -> None:
    """Writes the history first, then the alias.

    If the process dies in between, the history has one entry too many, and no change lacks an entry. `rollback` uses
    the entries that agree with the alias. MLflow has no compare-and-swap, so the alias is read before and after, under
    a lock if the storage is shared.
    """
    name, alias = decision.name, decision.alias
    with _lock(name):
        now = _holder(tracking, name, alias)
        if (now.version if now else None) != decision.before:
            raise ShoplensError(
                f"{alias} of {name} was moved to {now or 'nothing'} meanwhile; nothing was changed: try again"
            )
        number = len(_history(tracking, name))
        stamp = decision.at.replace("+00:00", "Z").replace("-", "").replace(":", "")
        tracking.set_registered_model_tag(name, f"promotion/{stamp}-{number}", decision.model_dump_json())
        tracking.set_registered_model_alias(name, alias, str(decision.after))
        now = _holder(tracking, name, alias)
        if now is None or now.version != decision.after:
            raise ShoplensError(f"{alias} of {name} is {now or 'nothing'}, not {decision.after}: someone moved it too")
        if alias == "champion":
            previous = _version_before(tracking, name, alias, decision.after)
            if previous is not None:
                tracking.set_registered_model_alias(name, "previous", str(previous))
            elif "previous" in tracking.get_registered_model(name).aliases:
                tracking.delete_registered_model_alias(name, "previous")


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """A lock on a model among all processes that share `SHOPLENS_STORAGE`; none if the storage is a URI."""
    storage = os.environ.get("SHOPLENS_STORAGE")
    if not storage or "://" in storage:
        yield
        return
    folder = Path(storage, "locks")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / f"promotion-{name}.lock", timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise ShoplensError(
            f"another promotion of {name} has been under way for {LOCK_SECONDS:.0f} s: try again"
        ) from None


def _version_before(tracking: MlflowClient, name: str, alias: str, version: int | None) -> int | None:
    """The newest version that still exists and that the alias left for `version`."""
    entries = [decision for decision in _history(tracking, name) if decision.alias == alias]
    there = {
        int(found.version) for found in tracking.search_model_versions(f"name='{name}'") if found.status == "READY"
    }
    return next((earlier for earlier in reversed(beneath(entries, version)) if earlier in there), None)


def beneath(entries: list[Decision], version: int | None) -> list[int]:
    """The stack of versions below `version`: rollback returns to the last one.

    A promotion pushes a version, a rollback pops one. If an entry starts from another version than the previous entry
    ended at (someone moved the alias by hand, or an entry was never carried out), the stack is cut back to that version,
    or that version is pushed if it is not on the stack.
    """
    way: list[int] = []

    def stand_on(place: int) -> None:
        if place in way:
            del way[len(way) - way[::-1].index(place) :]
        else:
            way.append(place)

    for entry in entries:
        if entry.before is not None:
            stand_on(entry.before)
        if entry.action == "rollback":
            stand_on(entry.after)
        else:
            way.append(entry.after)
    if version is None:
        return way
    stand_on(version)
    return way[:-1]


def _holder(tracking: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    _registered_tags(tracking, name)
    try:
        return as_version(tracking.get_model_version_by_alias(name, alias))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def _check_alias(alias: str) -> None:
    if not re.fullmatch(r"(?![vV]\d+$)[\w-]{1,255}", alias):
        raise ShoplensError(f"{alias!r} cannot be an alias: use letters, digits, - and _ (and not v3)")
    if alias in KEPT_BY_SHOPLENS:
        raise ShoplensError(f"the alias {alias!r} is kept by shoplens itself: promote to champion or challenger")


def _dataset(tracking: MlflowClient, candidate: ModelVersion, dataset: str | None) -> tuple[str, str]:
    """(path, digest) of the data to judge on."""
    if dataset is not None:
        return dataset, Dataset(dataset).digest
    tags = tracking.get_run(candidate.run_id).data.tags if candidate.run_id else {}
    if "dataset_path" not in tags or "dataset_digest" not in tags:
        raise ShoplensError(f"{candidate} does not say which dataset it was trained on: name one to judge it on")
    return tags["dataset_path"], tags["dataset_digest"]


def _evaluated(evaluate: Evaluate, version: ModelVersion, path: str, digest: str, split: str) -> Evaluation:
    now = Dataset(path).digest
    if now != digest:
        raise ShoplensError(
            f"the dataset at {path} has changed since the model was trained ({now[:12]}, not {digest[:12]}): "
            "name the dataset to judge on"
        )
    made = evaluate(version, path, split)
    on = made.about.get("dataset_digest"), made.about.get("split")
    if on != (digest, split):
        raise ShoplensError(f"{version} was evaluated on {on[1]} of dataset {on[0]}, asked was {split} of {digest}")
    return made


def gates_of(version: ModelVersion, file: str | None = None) -> Gates:
    """The section `promotion:` of `file`, else of the configuration that the version was trained with.

    Raises ConfigError if there is none: a model is not promoted unasked.
    """
    if file is not None:
        return _gates(read_yaml(file), file)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            path = client().download_artifacts(version.run_id, "config.yaml", scratch)
        except OSError:
            raise ConfigError(f"the run of {version} holds no config.yaml: name a file with --gates") from None
        return _gates(read_yaml(path), f"the configuration of {version}")


def _gates(tree: Mapping[str, Any], where: str) -> Gates:
    if not isinstance(tree.get("promotion"), Mapping):
        raise ConfigError(f"{where} has no section `promotion:` with gates: add one, or name a file with --gates")
    return validate(Gates, tree["promotion"], f"{where}, promotion")
