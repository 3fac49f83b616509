"""Category classification, zero-shot by the nearest prompt and by a linear probe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from shoplens.evaluation.embedded import MODALITIES, MODALITY_TITLES, EmbeddedSplit, Modality
from shoplens.evaluation.heads.probes import LinearHead
from shoplens.evaluation.metrics import TIE
from shoplens.evaluation.ranking import SCORES_AT_ONCE
from shoplens.evaluation.results import Findings, MetricInfo
from shoplens.statistics.calibration import reliability

TOPS = (1, 5)
TITLES = {"category": "Category, by a linear probe", "category_zero_shot": "Category, by the nearest path text"}
ZERO_SHOT_TITLE = "Category without training on it"
Path = tuple[str, ...]
Encode = Callable[[Sequence[str]], np.ndarray]
"""Texts -> float32 unit vectors [n, d]."""


def classify(train: EmbeddedSplit, development: EmbeddedSplit, split: EmbeddedSplit, encode: Encode) -> Findings:
    """`category/{image,text,fused}/` top1, top5, top1@levelN, top5@levelN and tree_distance by a linear probe.

    `category_zero_shot/...` has the same metrics by the nearest path text among the categories of `train` and `split`.
    The score of a category above the leaves is the summed probability of its leaves (probe), or the score of its
    best leaf (zero-shot). Chance is always answering the most frequent categories of the training products.
    """
    found = Findings()
    paths, frequency = split.path_of_product, Counter(path for path in train.path_of_product if path)
    if not any(paths) or len(frequency) < 2:
        return found
    candidates = sorted({*frequency, *filter(None, paths)})
    prompts = encode([" ".join(path) for path in candidates])
    names = {path: str(number) for number, path in enumerate(candidates)}
    group = split.catalog_of_product
    for modality in MODALITIES:
        vectors, rows = split.vectors(modality), split.rows(modality)
        asked = np.array([bool(paths[row]) for row in rows])
        truth, unit = [paths[row] for row in rows[asked]], group[rows[asked]]
        head = LinearHead.fit(
            train.vectors(modality),
            _labels(train, train.rows(modality), names),
            development.vectors(modality),
            _labels(development, development.rows(modality), names),
        )
        known = [candidates[int(value)] for value in head.values]
        logits = head.logits(vectors[asked])
        _judge(found, "category", modality, truth, unit, known, logits, _log_sum, frequency)
        scores = vectors[asked] @ prompts.T
        _judge(found, "category_zero_shot", modality, truth, unit, candidates, scores, _best, frequency)
        answers = head.answer(vectors[asked])
        hit = np.array([known[code] == path for code, path in zip(answers.code, truth, strict=True)])
        found.titles[f"category/{modality}"] = f"{TITLES['category']}, {MODALITY_TITLES[modality]}"
        found.about.setdefault("reliability", {})[f"category/{modality}"] = reliability(answers.probability, hit)
        found.about.setdefault("mistakes", {})[f"category/{modality}"] = mistakes(
            np.flatnonzero(asked),
            answers.probability,
            hit,
            [_distinct_name(known[code], path) for code, path in zip(answers.code, truth, strict=True)],
            [_distinct_name(path, known[code]) for code, path in zip(answers.code, truth, strict=True)],
        )
    return found


def tree_distance(a: Path, b: Path) -> float:
    """1 - 2 (shared levels) / (levels of a + levels of b): 0 for the same category, 1 if nothing is shared
    (Wu & Palmer 1994)."""
    shared = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        shared += 1
    return 1 - 2 * shared / (len(a) + len(b))


def mistakes(
    rows: np.ndarray, confidence: np.ndarray, hit: np.ndarray, said: Sequence[str], truth: Sequence[str], n: int = 8
) -> list[dict[str, Any]]:
    """The n wrong answers of highest confidence, for the report. `rows` are places in `EmbeddedSplit.vectors`."""
    wrong = np.flatnonzero(~hit)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:n]
    return [
        {"row": int(rows[i]), "said": said[i], "truth": truth[i], "confidence": float(confidence[i])} for i in surest
    ]


def _distinct_name(path: Path, other: Path) -> str:
    """The category's name, or its whole path if `other` has the same name."""
    return path[-1] if path[-1] != other[-1] else " › ".join(path)


def _labels(split: EmbeddedSplit, rows: np.ndarray, names: dict[Path, str]) -> list[str | None]:
    of_product = [names.get(path) for path in split.path_of_product]
    return [of_product[row] for row in rows]


def _log_sum(scores: np.ndarray) -> np.ndarray:
    return np.asarray(logsumexp(scores, axis=1))


def _best(scores: np.ndarray) -> np.ndarray:
    return np.asarray(scores.max(axis=1))


def _judge(
    found: Findings,
    task: str,
    modality: Modality,
    truth: Sequence[Path],
    unit: np.ndarray,
    candidates: Sequence[Path],
    scores: np.ndarray,
    together: Callable[[np.ndarray], np.ndarray],
    frequency: Counter[Path],
) -> None:
    """Adds the metrics of one method.

    scores     [n, candidates]
    together   scores a category from the scores of its leaves
    """
    name = f"{task}/{modality}"
    depth = max(len(path) for path in truth)
    for level in (*range(1, depth), depth):
        suffix = "" if level == depth else f"@level{level}"
        cut = None if level == depth else level
        ancestors = sorted({path[:cut] for path in candidates})
        of_candidate = np.array([ancestors.index(path[:cut]) for path in candidates])
        rolled = np.stack([together(scores[:, of_candidate == code]) for code in range(len(ancestors))], axis=1)
        judged = np.array([len(path) >= level or cut is None for path in truth])
        place = {path: code for code, path in enumerate(ancestors)}
        codes = np.array([place.get(path[:cut], -1) for path in truth])[judged]
        ahead = _wrong_ahead(rolled[judged], codes)
        by_frequency: Counter[Path] = Counter()
        for path, n in frequency.items():
            by_frequency[path[:cut]] += n
        for k in TOPS:
            if k >= len(ancestors):
                continue
            common = {path for path, _ in by_frequency.most_common(k)}
            by_chance = float(np.mean([truth[i][:cut] in common for i in np.flatnonzero(judged).tolist()]))
            info = MetricInfo(title=f"top{k}{suffix}", task_title=TITLES[task], modality=modality)
            found.add(f"{name}/top{k}{suffix}", (ahead < k).astype(np.float64), unit[judged], by_chance, info)
    place = {path: code for code, path in enumerate(candidates)}
    codes = np.array([place.get(path, -1) for path in truth])
    lowered = np.array(scores, dtype=np.float64)
    lowered[np.flatnonzero(codes >= 0), codes[codes >= 0]] -= TIE
    said = lowered.argmax(axis=1)
    distance = np.array([tree_distance(candidates[code], path) for code, path in zip(said, truth, strict=True)])
    most = frequency.most_common(1)[0][0]
    by_chance = float(np.mean([tree_distance(most, path) for path in truth]))
    info = MetricInfo(title="distance in the tree", task_title=TITLES[task], modality=modality, lower_is_better=True)
    found.add(f"{name}/tree_distance", distance, unit, by_chance, info)


def _wrong_ahead(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Number of wrong candidates ranked before the right one, [n]; all of them where `truth` is -1."""
    of_truth = scores[np.arange(len(truth)), truth]
    ahead = (scores >= of_truth[:, None] - TIE).sum(axis=1) - 1
    return np.where(truth >= 0, ahead, scores.shape[1])


@dataclass(frozen=True)
class ZeroShot:
    """Outcomes, groups and chance by metric name, accuracy of each category, number of photos without a category."""

    outcomes: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]
    chance: dict[str, float]
    by_category: list[dict[str, Any]]
    n_without_category: int


def zero_shot_category(split: EmbeddedSplit) -> ZeroShot:
    """Each photo takes the category with the nearest prompt. It is right at a level if both paths agree up to it.

    Chance is a uniform guess among the candidate categories. Raises ValueError if `split` has no category vectors.
    """
    if split.category is None or split.category_vectors is None:
        raise ValueError("the split has no category vectors")
    of_photo = split.category[split.product]
    asked = np.flatnonzero(of_photo >= 0)
    truth = of_photo[asked]
    group = split.catalog_of_product[split.product[asked]]
    paths = split.category_paths
    depth = np.array([len(path) for path in paths], dtype=np.int64)
    answers = {"zero_shot_category/accuracy": (np.arange(len(split.category_vectors)), np.arange(len(asked)))}
    for level in range(1, int(depth.max(initial=0))):
        places: dict[tuple[str, ...], int] = {}
        answer = np.array([places.setdefault(tuple(path[:level]), len(places)) for path in paths])
        answers[f"zero_shot_category/accuracy@level{level}"] = (answer, np.flatnonzero(depth[truth] >= level))
    outcomes, groups, chance = {}, {}, {}
    for name, (answer, judged) in answers.items():
        photos = split.images[asked[judged]]
        outcomes[name] = _answers_right(photos, split.category_vectors, answer, truth[judged])
        groups[name] = group[judged]
        shares = np.bincount(answer)[answer] / len(answer)
        chance[name] = float(shares[truth[judged]].mean()) if len(judged) else 0.0
    correct = outcomes["zero_shot_category/accuracy"]
    by_category = [
        {
            "category": list(paths[code]) if paths else [str(code)],
            "n": int((truth == code).sum()),
            "accuracy": float(correct[truth == code].mean()),
        }
        for code in np.unique(truth).tolist()
    ]
    return ZeroShot(outcomes, groups, chance, by_category, len(of_photo) - len(asked))


def _answers_right(photos: np.ndarray, candidates: np.ndarray, answer: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[n] 1.0 where the best candidate [c] of the right answer scores above all candidates of other answers.

    answer   [c] answer that each candidate stands for
    truth    [n] right candidate of each photo
    """
    right = np.zeros(len(photos))
    step = max(1, SCORES_AT_ONCE // len(candidates))
    for start in range(0, len(photos), step):
        scores = photos[start : start + step] @ candidates.T
        same = answer[None, :] == answer[truth[start : start + step], None]
        best_right = np.where(same, scores, -np.inf).max(axis=1)
        best_wrong = np.where(same, -np.inf, scores).max(axis=1)
        right[start : start + step] = best_right - TIE > best_wrong
    return right
