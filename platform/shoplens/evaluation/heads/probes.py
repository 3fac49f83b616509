"""Linear heads on frozen vectors: one head for each question, with calibrated probabilities and abstention."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from shoplens.errors import ShoplensError
from shoplens.statistics.calibration import fit_temperature, threshold_at_precision

PENALTIES = (1e-2, 1e-1, 1.0)
"""Inverse strengths of the ridge penalty, of which the development rows choose one."""
DEFAULT_PENALTY = 1e-1
STEPS = 100
"""Maximum of L-BFGS steps. Vectors of low rank need many more to converge, without a better development loss."""
PRECISION = 0.9
FORMAT_VERSION = 1
Values = Sequence[str | None]
"""A value for each row; None if it is unknown."""


@dataclass(frozen=True)
class Answers:
    """For each row: code of the most probable value [n], its probability [n], and whether the head answers [n]."""

    code: np.ndarray
    probability: np.ndarray
    answered: np.ndarray


@dataclass(frozen=True)
class LinearHead:
    """softmax((weights v + bias) / temperature) over `values`; abstains below `threshold`.

    weights float32 [values, d], bias float32 [values].
    """

    values: tuple[str, ...]
    weights: np.ndarray
    bias: np.ndarray
    temperature: float = 1.0
    threshold: float = 0.0

    def logits(self, vectors: np.ndarray) -> np.ndarray:
        """[n, values], temperature applied."""
        return (vectors @ self.weights.T + self.bias) / np.float32(self.temperature)

    def predict_proba(self, vectors: np.ndarray) -> np.ndarray:
        return np.asarray(softmax(self.logits(vectors).astype(np.float64), axis=1))

    def answer(self, vectors: np.ndarray) -> Answers:
        probabilities = self.predict_proba(vectors)
        best = probabilities.max(axis=1)
        return Answers(probabilities.argmax(axis=1), best, best >= self.threshold)

    def codes(self, values: Values) -> np.ndarray:
        """[n] place of each value in the head's `values`; -1 if the head does not have it."""
        place = {value: code for code, value in enumerate(self.values)}
        return np.array([place.get(value, -1) if value is not None else -1 for value in values], dtype=np.int64)

    @classmethod
    def fit(
        cls,
        vectors: np.ndarray,
        values: Values,
        development: np.ndarray,
        development_values: Values,
        *,
        precision: float = PRECISION,
    ) -> LinearHead:
        """Logistic regression on the standardised rows [n, d] whose value is known.

        The development rows choose the penalty and the temperature by log loss. They also choose the threshold: the
        lowest probability at which `precision` of the answers are right. A value that training has not seen counts as
        wrong. Without development rows the head has the default penalty, temperature 1 and no abstention.
        Raises ValueError unless at least two different values are known.
        """
        known = np.array([value is not None for value in values], dtype=bool)
        truth = np.array([value for value in values if value is not None], dtype=str)
        if len(np.unique(truth)) < 2:
            raise ValueError("a head needs at least two values to choose between")
        rows = vectors[known].astype(np.float32)
        mean, scale = rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-6)
        standardised = (rows - mean) / scale
        judged = np.array([value is not None for value in development_values], dtype=bool)
        theirs = development[judged].astype(np.float32)
        their_values = [value for value in development_values if value is not None]
        best, best_loss = None, np.inf
        for penalty in PENALTIES if judged.any() else (DEFAULT_PENALTY,):
            with warnings.catch_warnings(), threadpool_limits(1):  # on a busy machine a second thread costs 50 times
                warnings.simplefilter("ignore", UserWarning)  # few rows a value; not converged
                model = LogisticRegression(C=penalty, max_iter=STEPS, tol=1e-3).fit(standardised, truth)
            weights, bias = model.coef_, model.intercept_
            if len(model.classes_) == 2:
                weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
            weights = weights / scale
            bias = bias - weights @ mean
            values_seen = tuple(str(value) for value in model.classes_)
            head = cls(values_seen, weights.astype(np.float32), bias.astype(np.float32))
            codes = head.codes(their_values)
            logits, codes = head.logits(theirs[codes >= 0]).astype(np.float64), codes[codes >= 0]
            loss = -log_softmax(logits, axis=1)[np.arange(len(codes)), codes].mean() if len(codes) else 0.0
            if best is None or loss < best_loss:
                temperature = fit_temperature(logits, codes)
                best, best_loss = cls(head.values, head.weights, head.bias, temperature), loss
        assert best is not None
        if not judged.any():
            return best
        found = best.answer(theirs)
        threshold = threshold_at_precision(found.probability, found.code == best.codes(their_values), precision)
        return cls(best.values, best.weights, best.bias, best.temperature, threshold)


@dataclass(frozen=True)
class AttributeHeads:
    """A `LinearHead` for each attribute key, all on vectors of one modality."""

    modality: str
    heads: Mapping[str, LinearHead]

    @classmethod
    def fit(
        cls,
        modality: str,
        vectors: np.ndarray,
        values_by_key: Mapping[str, Values],
        development: np.ndarray,
        development_values_by_key: Mapping[str, Values],
        *,
        precision: float = PRECISION,
    ) -> AttributeHeads:
        """Fits one head for each key, from the rows that have the key. A missing value (None) is not a negative."""
        heads = {
            key: LinearHead.fit(vectors, values, development, development_values_by_key[key], precision=precision)
            for key, values in values_by_key.items()
        }
        return cls(modality, heads)

    def predict_proba(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """Key -> [n, values of its head]."""
        return {key: head.predict_proba(vectors) for key, head in self.heads.items()}

    def answer(self, vectors: np.ndarray) -> dict[str, Answers]:
        return {key: head.answer(vectors) for key, head in self.heads.items()}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `MODALITY.safetensors` (weights and biases) and `MODALITY.json` (everything else)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays, heads = {}, []
        for number, (key, head) in enumerate(self.heads.items()):
            arrays[f"{number}.weights"] = np.ascontiguousarray(head.weights)
            arrays[f"{number}.bias"] = np.ascontiguousarray(head.bias)
            heads.append(
                {"key": key, "values": head.values, "temperature": head.temperature, "threshold": head.threshold}
            )
        save_file(arrays, folder / f"{self.modality}.safetensors")
        summary = {"format_version": FORMAT_VERSION, "modality": self.modality, "heads": heads}
        (folder / f"{self.modality}.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1), "utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str], modality: str) -> AttributeHeads:
        """Raises ShoplensError if the folder holds no heads of that modality, or damaged ones."""
        folder = Path(folder)
        try:
            summary = json.loads((folder / f"{modality}.json").read_text("utf-8"))
            if summary["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format {summary['format_version']}")
            arrays = load_file(folder / f"{modality}.safetensors")
            heads = {}
            for number, entry in enumerate(summary["heads"]):
                weights, bias = arrays[f"{number}.weights"], arrays[f"{number}.bias"]
                if weights.shape[:1] != bias.shape or len(bias) != len(entry["values"]):
                    raise ValueError(
                        f"the head of {entry['key']!r} has {len(entry['values'])} values, {bias.shape} biases"
                    )
                heads[entry["key"]] = LinearHead(
                    tuple(entry["values"]), weights, bias, entry["temperature"], entry["threshold"]
                )
        except FileNotFoundError as error:
            raise ShoplensError(
                f"{folder} holds no attribute heads for {modality} ({error.filename} is missing)"
            ) from error
        except Exception as error:  # safetensors raises its own kinds
            raise ShoplensError(f"the attribute heads for {modality} in {folder} are damaged: {error}") from error
        return cls(modality, heads)
