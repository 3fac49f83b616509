"""Judges the similar-product lists that a model's index makes: what they hold, and whether shoppers clicked what is in them.

Every product of the dataset is a seed. `k=20`, `rules.KEY=VALUE` and `widening.KEY=VALUE` are the list's settings,
`seeds=5000` takes so many products at random. Figures, report and lists go to the run that trained the model.
"""

from __future__ import annotations

import functools
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from workloads.job import parse, parser, run

if TYPE_CHECKING:
    from shoplens.datasets.format import Dataset
    from shoplens.evaluation.results import Evaluation
    from shoplens.registry.versions import ModelVersion
    from shoplens.search.index import Index
    from shoplens.search.lists.evaluation import Log
    from shoplens.search.lists.report import Advice


def main() -> None:
    arguments = parser("workloads.evaluate_lists", __doc__)
    arguments.add_argument("--model", required=True, help="models:/similar@candidate, similar/3, ...")
    arguments.add_argument("--against", help="another version with an index, such as eclip@champion")
    arguments.add_argument("--events", metavar="ROOT", help="event log with clicks on lists, and their propensities")
    given = parse(arguments)

    from rich.console import Console
    from rich.progress import Progress

    from shoplens.cluster.file import attach
    from shoplens.config import override, validate
    from shoplens.datasets.format import Dataset
    from shoplens.evaluation.table import table
    from shoplens.registry.evaluations import artifact_folder, store_evaluation
    from shoplens.registry.runs import client
    from shoplens.registry.versions import resolve
    from shoplens.search.lists import evaluation as judged
    from shoplens.search.lists import made as lists
    from shoplens.search.lists.replay import SPLIT
    from shoplens.search.lists.report import differences, render, sentence

    class Settings(judged.ListsConfig, judged.LogConfig):
        dataset: str

    settings = validate(Settings, override({}, given.assignments), "the command line")
    attach()
    dataset = Dataset(settings.dataset)
    log = logged(dataset, settings, given.events)
    versions = [resolve(reference) for reference in (given.model, given.against) if reference is not None]
    indexes = [index_of(version) for version in versions]
    names = names_of(versions)
    shop = judged.Shop.of(dataset, indexes, settings.rules)
    console = Console(highlight=False)
    with Progress(console=console, transient=True) as bar:
        made = []
        for name, index in zip(names, indexes, strict=True):
            task = bar.add_task(f"lists of {name}", total=len(shop.seeds(settings)))
            made.append(judged.make(index, shop, settings, functools.partial(bar.advance, task)))
    found: list[Evaluation] = []
    for name, other, ours, theirs in zip(names, names[::-1], made, made[::-1], strict=True):
        about = {
            "model": name,
            "dataset": dataset.name,
            "dataset_path": dataset.path,
            "dataset_digest": dataset.digest,
            "split": SPLIT,
        }
        pair = {"against": other} if len(made) > 1 else {}
        findings = judged.judge(ours, shop, settings, log, theirs if pair else None)
        found.append(findings.evaluation(about | pair))
    again = shlex.join(["python", "-m", "workloads.evaluate_lists", *sys.argv[1:]])
    then = advice(versions, found[0], again)
    for place, (version, evaluation) in enumerate(zip(versions, found, strict=True)):
        order = slice(None, None, -1 if place else 1)
        shown = dict(zip(names[order], made[order], strict=True))
        compared = differences(evaluation, found[1 - place]) if len(found) > 1 else []
        page = render(evaluation, then, judged.examples(shown, shop, dataset, settings.examples), compared)
        store_evaluation(version, evaluation, page)
        folder = artifact_folder(version, dataset.digest, SPLIT)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "lists.parquet")
            lists.write(path, made[place].index, made[place].lists, settings.rules, settings.widening)
            client().log_artifact(version.run_id, str(path), folder)
    console.print(table(found[0]), markup=False, soft_wrap=True)
    console.print(sentence(found[0]), markup=False, style="bold", soft_wrap=True)
    where = artifact_folder(versions[0], dataset.digest, SPLIT)
    told = f"Report and lists: {where}/report.html and lists.parquet of run {versions[0].run_id}"
    console.print(told, markup=False, soft_wrap=True)
    console.print(f"Next: {then.words}\n  {then.command}", markup=False, soft_wrap=True)


def index_of(version: ModelVersion) -> Index:
    """The version's index with its deltas. Raises ShoplensError if it has none, or one that is not of this version."""
    from shoplens.errors import ShoplensError
    from shoplens.search import deltas

    build = f"build it with `python -m workloads.build_index --model {version} dataset=DIR`"
    folder = version.tags.get("index")
    if folder is None:
        raise ShoplensError(f"{version} has no index: {build}")
    index = deltas.load(folder)
    built_for = f"{index.about.get('model')}/{index.about.get('version')}"
    if built_for != str(version):
        raise ShoplensError(f"the index {folder} was built for {built_for}, not for {version}: {build}")
    return index


def names_of(versions: list[ModelVersion]) -> list[str]:
    from shoplens.errors import ShoplensError

    names = [str(version) for version in versions]
    if len(set(names)) < len(names):
        raise ShoplensError(f"--model and --against are one version, {names[0]}: name two")
    return names


def logged(dataset: Dataset, settings: object, events: str | None) -> Log | None:
    from shoplens.experiments.event_log import read
    from shoplens.search.lists.evaluation import LogConfig, log_of_events, log_of_sessions

    assert isinstance(settings, LogConfig)
    if events is not None:
        return log_of_events(read(events), settings)
    if settings.clicks == "session":
        return log_of_sessions(dataset.table("interactions"), settings)
    return None


def advice(versions: list[ModelVersion], found: Evaluation, again: str) -> Advice:
    """What to do next, and how."""
    from shoplens.errors import ShoplensError
    from shoplens.registry.versions import resolve
    from shoplens.search.lists.report import Advice

    version, k = versions[0], found.about["k"]
    broken = found.metrics.get(f"lists/violations@{k}")
    if broken is not None and broken.value:
        build = f"python -m workloads.build_index --model {version} dataset={found.about['dataset_path']}"
        return Advice("rules are broken, which must not be: build the index again, and judge it again", build)
    if len(versions) == 1:
        try:
            champion = str(resolve(f"{version.name}@champion"))
        except ShoplensError:
            champion = str(version)
        if champion != str(version):
            return Advice("compare it with what is served now", f"{again} --against {champion}")
    promote = f"shoplens promote {version.name} {version.version} --alias champion"
    return Advice("look at the report's lists; gates may ask for its figures (`promotion:`)", promote)


if __name__ == "__main__":
    run(main)
