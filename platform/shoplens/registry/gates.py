"""Gates: floors and ceilings for a model's metrics, and the largest fall behind the version that is served."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np
from pydantic import Field, model_validator

from shoplens.config import Config
from shoplens.errors import ShoplensError
from shoplens.evaluation.results import Evaluation
from shoplens.schema import Split
from shoplens.statistics.bootstrap import interval_of_draws, paired_difference

_ROUNDING = 1e-12


class Gate(Config):
    """A bar for one metric.

    The point difference decides, not its interval. Judged by the lower end of the interval, a small test set would
    refuse every model; judged by the upper end, it would let any model through. The verdict shows the interval, so that
    a person sees how much of a difference is noise.
    """

    metric: str = Field(description="Name of the metric in the evaluation, such as text_to_image/recall@10.")
    at_least: float | None = Field(None, allow_inf_nan=False, description="Lowest value that passes.")
    at_most: float | None = Field(
        None, allow_inf_nan=False, description="Highest value that passes, for errors, which are better when lower."
    )
    max_drop: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Largest fall below the version that holds the alias, on the same queries.",
    )

    @model_validator(mode="after")
    def _sets_a_bar(self) -> Gate:
        if self.at_least is None and self.at_most is None and self.max_drop is None:
            raise ValueError("a gate needs at_least, max_drop or both, or for an error at_most")
        if self.at_most is not None and (self.at_least is not None or self.max_drop is not None):
            raise ValueError("at_most is for errors, at_least and max_drop for what should be high: set one kind")
        return self


class Gates(Config):
    """The gates of a model, and the split of the dataset they are judged on."""

    split: Split = Field("test", description="Split on which candidate and holder are compared.")
    gates: tuple[Gate, ...] = Field(min_length=1, description="The gates. All must pass.")


class Verdict(Config):
    """The outcome of a gate.

    judged                 false if the split has no query of the gate's task; such a gate decides nothing
    value                  the metric; None if it was not judged
    holder                 the metric of the version that holds the alias
    difference             candidate minus holder
    difference_low, _high  its paired 95 % interval
    """

    gate: Gate
    passed: bool
    why: str
    judged: bool = True
    value: float | None
    low: float | None
    high: float | None
    holder: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


class NotComparable(ShoplensError):
    """Two evaluations were made over different queries, so their difference means nothing."""


def judge(gates: Iterable[Gate], candidate: Evaluation, holder: Evaluation | None) -> list[Verdict]:
    """A verdict for each gate, in order. Without a holder `max_drop` passes.

    A gate on a task that no query of the split can answer is not judged: in a shop without catalog ids, no listing has
    another one of the same product to find.

    Raises ShoplensError if a gate names a metric that was not measured, or has the wrong kind of bar, or if no gate can be
    judged. Raises NotComparable if the evaluations were made over different queries.
    """
    verdicts = [_unanswerable(gate, candidate) or _verdict(gate, candidate, holder) for gate in gates]
    if verdicts and not any(verdict.judged for verdict in verdicts):
        raise ShoplensError("; ".join(f"{verdict.gate.metric}: {verdict.why}" for verdict in verdicts))
    return verdicts


def _unanswerable(gate: Gate, candidate: Evaluation) -> Verdict | None:
    """The verdict on a gate whose task was asked for, and has no query with a right answer in the split."""
    task = gate.metric.rpartition("/")[0]
    if task not in candidate.about.get("queries_without_answer", {}):
        return None
    if any(name.startswith(f"{task}/") for name in candidate.metrics):
        return None
    why = (
        "not judged: no query of the split has an answer to find; give products a category_path and listings of one "
        "product the same catalog_id, add products, or leave the gate out with a file of your own (--gates)"
    )
    return Verdict(gate=gate, passed=True, why=why, judged=False, value=None, low=None, high=None)


def _verdict(gate: Gate, candidate: Evaluation, holder: Evaluation | None) -> Verdict:
    name = gate.metric
    if name not in candidate.metrics:
        near = difflib.get_close_matches(name, candidate.metrics, n=1, cutoff=0.5)
        raise ShoplensError(
            f"the gate on {name!r} cannot be judged, the evaluation did not measure it"
            + (f"; did you mean {near[0]}?" if near else f": it measured {', '.join(sorted(candidate.metrics))}")
        )
    metric = candidate.metrics[name]
    if metric.lower_is_better != (gate.at_most is not None):
        kind = "an error: set at_most" if metric.lower_is_better else "better when higher: set at_least or max_drop"
        raise ShoplensError(f"the gate on {name!r} cannot be judged: it is {kind}")
    faults, found = [], [f"{metric.value:.4f}"]
    if gate.at_most is not None:
        found.append(f"at most {gate.at_most:g} is asked")
        if not metric.value <= gate.at_most:
            faults.append(f"above the ceiling {gate.at_most:g}")
    if gate.at_least is not None:
        found.append(f"at least {gate.at_least:g} is asked")
        if not metric.value >= gate.at_least:  # nan fails
            faults.append(f"below the floor {gate.at_least:g}")
    held = difference = low = high = None
    if holder is not None and gate.at_most is None:
        held, difference, low, high = _compare(name, candidate, holder)
        found.append(f"{difference:+.4f} [{low:+.4f}, {high:+.4f}] against {held:.4f}")
    if gate.max_drop is not None and difference is not None and not difference >= -gate.max_drop - _ROUNDING:
        faults.append(f"falls by more than {gate.max_drop:g}")
    elif gate.max_drop is not None:
        found.append(
            "nothing holds the alias to fall behind" if holder is None else f"a fall of {gate.max_drop:g} is allowed"
        )
    return Verdict(
        gate=gate,
        passed=not faults,
        why="; ".join([", ".join(found), *faults]),
        value=metric.value,
        low=metric.low,
        high=metric.high,
        holder=held,
        difference=difference,
        difference_low=low,
        difference_high=high,
    )


def _compare(name: str, candidate: Evaluation, holder: Evaluation) -> tuple[float, float, float, float]:
    alike = name in holder.metrics and (name in candidate.draws) == (name in holder.draws)
    if not alike or not np.array_equal(candidate.groups[name], holder.groups[name]):
        raise NotComparable(
            f"the two evaluations of {name} were made over different queries: evaluate both models again"
        )
    if name in candidate.draws:
        drawn = candidate.draws[name] - holder.draws[name]
        low, high = interval_of_draws(drawn, len(np.unique(candidate.groups[name])))
        return holder.metrics[name].value, candidate.metrics[name].value - holder.metrics[name].value, low, high
    return holder.metrics[name].value, *paired_difference(
        candidate.outcomes[name], holder.outcomes[name], candidate.groups[name]
    )
