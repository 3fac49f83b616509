from __future__ import annotations

import pickle
import re
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.errors import ShoplensError
from shoplens.evaluation.results import Evaluation
from shoplens.registry import promotion
from shoplens.registry.evaluations import find_evaluation, store_evaluation
from shoplens.registry.gates import Gates
from shoplens.registry.promotion import Decision, PromotionRefused, beneath, history, promote, rollback
from shoplens.registry.versions import ModelVersion, resolve

if TYPE_CHECKING:
    from conftest import Server, Shop

RECALL = "text_to_image/recall@10"
GATES = Gates.model_validate({"gates": [{"metric": RECALL, "at_least": 0.2, "max_drop": 0.01}]})


def _never(version: ModelVersion, path: str, split: str) -> Evaluation:
    raise AssertionError(f"{version} was evaluated though its evaluation is stored")


@pytest.fixture
def add(
    add_version: Callable[..., int], evaluated: Callable[..., Evaluation], model_name: str
) -> Callable[[float], int]:
    """Registers a version whose evaluation with that recall is stored: (recall) -> version."""

    def add(recall: float) -> int:
        version = add_version()
        store_evaluation(resolve(f"{model_name}/{version}"), evaluated(recall), "<p>report</p>")
        return version

    return add


def aliases(server: Server, name: str) -> dict[str, int]:
    return {alias: int(version) for alias, version in server.client.get_registered_model(name).aliases.items()}


def state(server: Server) -> list[str]:
    """Every row of every table, and every file: what a dry run must not change."""
    with sqlite3.connect(server.root / "mlflow.db") as database:
        rows = list(database.iterdump())
    return rows + sorted(f"{path} {path.stat().st_mtime_ns}" for path in (server.root / "artifacts").rglob("*"))


def test_a_stored_evaluation_is_found_again_and_logged_to_the_run(
    server: Server,
    shop: Shop,
    make_shop: Callable[..., Shop],
    model_name: str,
    tmp_path: Path,
    add_version: Callable[..., int],
    evaluated: Callable[..., Evaluation],
) -> None:
    version = resolve(f"{model_name}/{add_version()}")
    assert find_evaluation(version, shop.digest, "test") is None
    folder = store_evaluation(version, evaluated(0.5), "<p>보고서</p>")
    assert folder.startswith(f"evaluations/{shop.digest[:12]}-test/")
    found = find_evaluation(version, shop.digest, "test")
    assert found is not None
    assert found.metrics[RECALL].value == 0.5
    np.testing.assert_array_equal(found.outcomes[RECALL], evaluated(0.5).outcomes[RECALL])
    report = server.client.download_artifacts(version.run_id, f"{folder}/report.html")
    assert Path(report).read_text(encoding="utf-8") == "<p>보고서</p>"
    assert server.client.get_run(version.run_id).data.metrics["test/text_to_image/recall_at_10"] == 0.5

    other = make_shop(tmp_path / "other")
    store_evaluation(version, evaluated(0.9, on=other))
    assert server.client.get_run(version.run_id).data.metrics["test/text_to_image/recall_at_10"] == 0.5
    assert find_evaluation(version, shop.digest, "validation") is None
    assert find_evaluation(resolve(f"{model_name}/{add_version()}"), shop.digest, "test") is None
    with pytest.raises(ValueError, match="dataset_digest and split"):
        store_evaluation(version, Evaluation({}, {}, {}))


def test_the_whole_way_up_and_back(
    server: Server, model_name: str, shop: Shop, add: Callable[[float], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOPLENS_USER", "minji")
    first, second, third = add(0.5), add(0.6), add(0.595)
    decision = promote(model_name, first, gates=GATES, evaluate=_never, reason="the first")
    assert (decision.action, decision.before, decision.gate) == ("promote", None, "passed")
    assert aliases(server, model_name) == {"champion": first}
    promote(model_name, second, gates=GATES, evaluate=_never)
    assert aliases(server, model_name) == {"champion": second, "previous": first}
    decision = promote(model_name, third, gates=GATES, evaluate=_never, reason="within the drop")
    assert decision.verdicts[0].difference == pytest.approx(-0.005)
    assert decision.failing == []
    tags = resolve(model_name).tags
    assert (tags["gate"], tags["promoted_by"], tags["promoted_from"]) == (
        "passed",
        "minji",
        f"{model_name}/{second}",
    )
    assert tags["promotion_reason"] == "within the drop"
    assert tags["promoted_at"] == decision.at

    assert rollback(model_name, reason="complaints").after == second
    assert aliases(server, model_name) == {"champion": second, "previous": first}
    assert rollback(model_name).after == first, "further back, not to and fro"
    assert aliases(server, model_name) == {"champion": first}
    with pytest.raises(ShoplensError, match=f"no version before {model_name}/{first}"):
        rollback(model_name)

    entries = history(model_name)
    assert [(entry.action, entry.before, entry.after) for entry in entries] == [
        ("promote", None, first),
        ("promote", first, second),
        ("promote", second, third),
        ("rollback", third, second),
        ("rollback", second, first),
    ]
    assert [entry.reason for entry in entries] == ["the first", "", "within the drop", "complaints", ""]
    assert {entry.by for entry in entries} == {"minji"}
    assert entries[2] == decision
    assert entries[2].dataset_digest == shop.digest


def test_a_worse_model_is_refused_by_name_of_the_gate(
    server: Server, model_name: str, add: Callable[[float], int]
) -> None:
    good, worse = add(0.6), add(0.5)
    promote(model_name, good, gates=GATES, evaluate=_never)
    with pytest.raises(PromotionRefused, match=r"failing: text_to_image/recall@10") as refusal:
        promote(model_name, worse, gates=GATES, evaluate=_never)
    decision = refusal.value.decision
    assert decision.failing == [RECALL]
    assert decision.verdicts[0].difference == pytest.approx(-0.1)
    assert pickle.loads(pickle.dumps(refusal.value)).decision == decision
    assert aliases(server, model_name) == {"champion": good}
    assert "gate" not in resolve(f"{model_name}/{worse}").tags
    assert len(history(model_name)) == 1


def test_gates_may_ask_for_stored_figures_of_lists(
    server: Server, shop: Shop, model_name: str, add: Callable[[float], int]
) -> None:
    gates = Gates.model_validate(
        {"gates": [{"metric": RECALL, "at_least": 0.2}, {"metric": "lists/full@20", "at_least": 0.99, "max_drop": 0.0}]}
    )
    first = add(0.5)
    with pytest.raises(ShoplensError, match=rf"evaluate_lists --model {model_name}/1 dataset="):
        promote(model_name, first, gates=gates, evaluate=_never)

    def lists(version: int, short: int) -> None:
        full = (np.arange(200) >= short).astype(float)
        about = {"dataset_digest": shop.digest, "split": "lists"}
        found = Evaluation.of({"lists/full@20": full}, {"lists/full@20": np.arange(200)}, about=about)
        store_evaluation(resolve(f"{model_name}/{version}"), found)
        run = resolve(f"{model_name}/{version}").run_id
        assert server.client.get_run(run).data.metrics["lists/full_at_20"] == pytest.approx(1 - short / 200)

    lists(first, 1)
    assert promote(model_name, first, gates=gates, evaluate=_never).gate == "passed"
    second = add(0.6)
    lists(second, 2)
    with pytest.raises(PromotionRefused) as refused:
        promote(model_name, second, gates=gates, evaluate=_never)
    assert refused.value.decision.failing == ["lists/full@20"]


def test_force_leaves_a_trace(server: Server, model_name: str, add: Callable[[float], int]) -> None:
    good, worse, better = add(0.6), add(0.1), add(0.7)
    promote(model_name, good, gates=GATES, evaluate=_never, force=True)
    assert resolve(model_name).tags["gate"] == "passed", "nothing had to be forced"
    decision = promote(model_name, worse, gates=GATES, evaluate=_never, force=True, reason="the boss says so")
    assert "forced past text_to_image/recall@10" in str(decision)
    version = resolve(model_name)
    assert version.version == worse
    assert (version.tags["gate"], version.tags["gate_failing"]) == ("forced", RECALL)
    assert history(model_name)[-1].gate == "forced"
    assert history(model_name)[-1].reason == "the boss says so"
    assert promote(model_name, better, gates=GATES, evaluate=_never).before == worse


def test_a_dry_run_changes_nothing(
    server: Server,
    model_name: str,
    add: Callable[[float], int],
    add_version: Callable[..., int],
    evaluated: Callable[..., Evaluation],
) -> None:
    first, worse, unseen = add(0.6), add(0.5), add_version()
    promote(model_name, first, gates=GATES, evaluate=_never)
    second = add(0.6)
    promote(model_name, second, gates=GATES, evaluate=_never)
    before = state(server)
    refused = promote(model_name, worse, gates=GATES, evaluate=_never, dry_run=True)
    assert (refused.gate, refused.failing) == ("failed", [RECALL])
    assert "would be refused" in str(refused)
    forced = promote(model_name, worse, gates=GATES, evaluate=_never, dry_run=True, force=True)
    assert forced.gate == "forced"
    passed = promote(model_name, unseen, gates=GATES, evaluate=lambda *_: evaluated(0.9), dry_run=True)
    assert passed.gate == "passed"
    assert "would be champion" in str(passed)
    assert rollback(model_name, dry_run=True).after == first
    assert state(server) == before


def test_what_is_not_stored_is_evaluated_once(
    server: Server,
    shop: Shop,
    model_name: str,
    add_version: Callable[..., int],
    evaluated: Callable[..., Evaluation],
) -> None:
    asked: list[tuple[str, str, str]] = []

    def evaluate(version: ModelVersion, path: str, split: str) -> Evaluation:
        asked.append((str(version), path, split))
        return evaluated(0.5 + version.version / 10, split=split)

    gates = GATES.model_copy(update={"split": "validation"})
    first, second = add_version(), add_version()
    promote(model_name, first, gates=gates, evaluate=evaluate)
    promote(model_name, second, gates=gates, evaluate=evaluate)
    assert asked == [(f"{model_name}/{version}", shop.path, "validation") for version in (first, second)]


def test_evaluations_over_different_queries_are_made_again(
    server: Server, model_name: str, add: Callable[[float], int], evaluated: Callable[..., Evaluation]
) -> None:
    first = add(0.5)
    promote(model_name, first, gates=GATES, evaluate=_never)
    second = add(0.5)
    store_evaluation(resolve(f"{model_name}/{second}"), evaluated(0.5, queries=300))
    asked: list[int] = []

    def evaluate(version: ModelVersion, path: str, split: str) -> Evaluation:
        asked.append(version.version)
        return evaluated(0.5, queries=300)

    assert promote(model_name, second, gates=GATES, evaluate=evaluate).gate == "passed"
    assert sorted(asked) == [first, second]


def test_judged_on_another_dataset_when_asked(
    server: Server,
    model_name: str,
    make_shop: Callable[..., Shop],
    tmp_path: Path,
    add: Callable[[float], int],
    evaluated: Callable[..., Evaluation],
) -> None:
    other = make_shop(tmp_path / "other")
    decision = promote(
        model_name, add(0.1), gates=GATES, dataset=other.path, evaluate=lambda *_: evaluated(0.9, on=other)
    )
    assert decision.gate == "passed"
    assert decision.dataset_digest == other.digest


def test_data_that_changed_is_not_judged_on(
    server: Server,
    shop: Shop,
    model_name: str,
    make_shop: Callable[..., Shop],
    add_version: Callable[..., int],
    evaluated: Callable[..., Evaluation],
) -> None:
    version = add_version()
    with pytest.raises(ShoplensError, match="was evaluated on validation of"):
        promote(model_name, version, gates=GATES, evaluate=lambda *_: evaluated(0.9, split="validation"))
    make_shop(Path(shop.path), "something new")
    with pytest.raises(ShoplensError, match="has changed since the model was trained"):
        promote(model_name, version, gates=GATES, evaluate=_never)
    (Path(shop.path) / "manifest.json").unlink()
    with pytest.raises(ShoplensError, match="is not a dataset"):
        promote(model_name, version, gates=GATES, evaluate=_never)
    assert aliases(server, model_name) == {}


def test_promoting_what_is_there_already_does_nothing(
    server: Server, model_name: str, add: Callable[[float], int]
) -> None:
    version = add(0.5)
    promote(model_name, version, gates=GATES, evaluate=_never)
    before = state(server)
    decision = promote(model_name, version, gates=GATES, evaluate=_never)
    assert decision.action == "keep"
    assert "already: nothing to do" in str(decision)
    assert state(server) == before


def test_versions_that_cannot_be_promoted(server: Server, model_name: str, add: Callable[[float], int]) -> None:
    version, failed, deleted = add(0.5), add(0.5), add(0.5)
    with sqlite3.connect(server.root / "mlflow.db") as database:
        database.execute(
            "UPDATE model_versions SET status = 'FAILED_REGISTRATION' WHERE name = ? AND version = ?",
            (model_name, failed),
        )
    server.client.delete_model_version(model_name, str(deleted))

    def attempt(name: str = model_name, number: int = version, **arguments: Any) -> Decision:
        return promote(name, number, gates=GATES, evaluate=_never, **arguments)

    for arguments, message in [
        ({"number": failed}, "is not ready"),
        ({"number": deleted}, f"has no version {deleted}"),
        ({"number": 99}, "has no version 99"),
        ({"name": "nothing-of-that-name"}, "knows no model"),
        ({"alias": "previous"}, "is kept by shoplens"),
        ({"alias": "v3"}, "cannot be an alias"),
        ({"alias": "a b"}, "cannot be an alias"),
    ]:
        with pytest.raises(ShoplensError, match=message):
            attempt(**arguments)
    for call in (rollback, history):
        with pytest.raises(ShoplensError, match="knows no model"):
            call("nothing-of-that-name")
    with pytest.raises(ShoplensError, match="nothing was ever promoted"):
        rollback(model_name)


def test_other_aliases_have_a_way_of_their_own(server: Server, model_name: str, add: Callable[[float], int]) -> None:
    first, second = add(0.5), add(0.6)
    promote(model_name, first, gates=GATES, evaluate=_never)
    for version in (first, second):
        promote(model_name, version, gates=GATES, evaluate=_never, alias="challenger")
    assert aliases(server, model_name) == {"champion": first, "challenger": second}
    assert rollback(model_name, alias="challenger").after == first
    assert aliases(server, model_name) == {"champion": first, "challenger": first}


def test_rollback_passes_over_deleted_versions_and_heeds_hands(
    server: Server, model_name: str, add: Callable[[float], int]
) -> None:
    first, second, third, by_hand = (add(0.5) for _ in range(4))
    for version in (first, second, third):
        promote(model_name, version, gates=GATES, evaluate=_never)
    server.client.set_registered_model_alias(model_name, "champion", str(by_hand))
    assert rollback(model_name).after == third
    server.client.delete_model_version(model_name, str(second))
    assert rollback(model_name).after == first
    promote(model_name, third, gates=GATES, evaluate=_never)
    server.client.delete_model_version(model_name, str(third))
    decision = rollback(model_name)
    assert (decision.before, decision.after) == (None, first), "the champion was deleted"


def test_of_two_promotions_at_once_one_takes_effect(
    server: Server, model_name: str, add: Callable[[float], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(model_name, add(0.5), gates=GATES, evaluate=_never)
    rivals = [add(0.6), add(0.6)]
    carry_out = promotion._carry_out
    together = threading.Barrier(2)

    def at_once(*arguments: Any) -> None:
        together.wait(30)
        carry_out(*arguments)

    monkeypatch.setattr(promotion, "_carry_out", at_once)

    def attempt(version: int) -> str:
        try:
            return str(promote(model_name, version, gates=GATES, evaluate=_never).after)
        except ShoplensError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(attempt, rivals))
    winner = aliases(server, model_name)["champion"]
    assert min(results) == str(winner)
    assert re.search("was moved to .* meanwhile", sorted(results)[1])
    assert [entry.after for entry in history(model_name)][-1] == winner
    assert len(history(model_name)) == 2


def _entry(action: str, before: int | None, after: int) -> Decision:
    return Decision(
        name="m",
        alias="champion",
        action=action,
        before=before,
        after=after,
        gate="none",
        reason="",
        by="",
        at="",
    )


@given(st.lists(st.one_of(st.integers(1, 6), st.none())))
def test_the_way_back_is_that_of_a_stack(moves: list[int | None]) -> None:
    """Promotions (numbers) and rollbacks (None), against a plain list of the places stood on."""
    stack: list[int] = []
    entries: list[Decision] = []
    for move in moves:
        if move is None and len(stack) > 1:
            entries.append(_entry("rollback", stack[-1], stack[-2]))
            stack.pop()
        elif move is not None and stack[-1:] != [move]:
            entries.append(_entry("promote", stack[-1] if stack else None, move))
            stack.append(move)
    assert beneath(entries, stack[-1] if stack else None) == stack[:-1]


def test_the_way_back_after_moves_by_hand_and_entries_never_carried_out() -> None:
    way = [_entry("promote", None, 1), _entry("promote", 1, 2), _entry("promote", 2, 3)]
    assert beneath(way, 9) == [1, 2, 3], "set by hand to a version of no entry"
    assert beneath(way, 2) == [1], "the last entry was never carried out, or undone by hand"
    assert beneath([*way, _entry("promote", 1, 4)], 4) == [1], "set back by hand, then promoted"
    assert beneath([*way, _entry("promote", 9, 4)], 4) == [1, 2, 3, 9]
    assert beneath(way, None) == [1, 2, 3], "the champion was deleted"
