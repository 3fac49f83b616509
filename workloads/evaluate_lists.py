"""Evaluates the lists of similar products that a model's index makes: their content, and clicks on their products.

Every product of the dataset is a seed; `seeds=5000` draws 5000 of them at random. `k=20`, `rules.KEY=VALUE` and
`widening.KEY=VALUE` are the settings of the lists. Metrics, report and lists go to the run that trained the model.
"""

from __future__ import annotations

import functools
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workloads.job import Settings, run

if TYPE_CHECKING:
    from shoplens.datasets.format import Dataset
    from shoplens.evaluation.results import Evaluation
    from shoplens.registry.versions import ModelVersion
    from shoplens.search.index import Index
    from shoplens.search.lists.evaluation import Log
    from shoplens.search.lists.report import Advice


def main(
    settings: Settings,
    model: Annotated[str, typer.Option(help="Registered model with an index, such as similar@candidate.")],
    against: Annotated[
        str | None, typer.Option(help="Another version with an index, to compare with: eclip@champion.")
    ] = None,
    events: Annotated[
        str | None, typer.Option(metavar="ROOT", help="Event log with clicks on lists, and propensities.")
    ] = None,
) -> None:
    from pydantic import Field
    from rich.console import Console
    from rich.progress import Progress

    from shoplens.cluster.file import attach
    from shoplens.config import override, validate
    from shoplens.datasets.format import Dataset
    from shoplens.evaluation.table import table
    from shoplens.registry.evaluations import artifact_folder, store_evaluation
    from shoplens.registry.runs import client
    from shoplens.registry.versions import resolve
    from shoplens.search.lists import recommendations
    from shoplens.search.lists.evaluation import ListsConfig, LogConfig, examples, judge, make
    from shoplens.search.lists.replay import SPLIT
    from shoplens.search.lists.report import differences, render, sentence
    from shoplens.search.lists.shop import Shop

    class Judged(ListsConfig, LogConfig):
        dataset: str = Field(description="Folder of the dataset whose products are the seeds.")

    chosen = validate(Judged, override({}, settings), "the command line")
    attach()
    dataset = Dataset(chosen.dataset)
    log = logged(dataset, chosen, events)
    versions = [resolve(reference) for reference in (model, against) if reference is not None]
    indexes = [index_of(version) for version in versions]
    names = names_of(versions)
    shop = Shop.of(dataset, indexes, chosen.rules)
    console = Console(highlight=False)
    with Progress(console=console, transient=True) as bar:
        systems = []
        for name, index in zip(names, indexes, strict=True):
            task = bar.add_task(f"lists of {name}", total=len(shop.seeds(chosen.seeds)))
            systems.append(make(index, shop, chosen, functools.partial(bar.advance, task)))
    evaluations: list[Evaluation] = []
    for name, other, ours, theirs in zip(names, names[::-1], systems, systems[::-1], strict=True):
        about = {
            "model": name,
            "dataset": dataset.name,
            "dataset_path": dataset.path,
            "dataset_digest": dataset.digest,
            "split": SPLIT,
        }
        pair = {"against": other} if len(systems) > 1 else {}
        findings = judge(ours, shop, chosen, log, theirs if pair else None)
        evaluations.append(findings.evaluation(about | pair))
    again = shlex.join(["python", "-m", "workloads.evaluate_lists", *sys.argv[1:]])
    following = advice(versions, evaluations[0], again)
    for place, (version, evaluation) in enumerate(zip(versions, evaluations, strict=True)):
        order = slice(None, None, -1 if place else 1)
        shown = dict(zip(names[order], systems[order], strict=True))
        compared = differences(evaluation, evaluations[1 - place]) if len(evaluations) > 1 else []
        page = render(evaluation, following, examples(shown, shop, dataset, chosen.examples), compared)
        store_evaluation(version, evaluation, page)
        folder = artifact_folder(version, dataset.digest, SPLIT)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "lists.parquet")
            system = systems[place]
            recommendations.write(path, system.index, system.lists, chosen.rules, chosen.widening)
            client().log_artifact(version.run_id, str(path), folder)
    console.print(table(evaluations[0]), markup=False, soft_wrap=True)
    console.print(sentence(evaluations[0]), markup=False, style="bold", soft_wrap=True)
    where = artifact_folder(versions[0], dataset.digest, SPLIT)
    stored = f"Report and lists: {where}/report.html and lists.parquet of run {versions[0].run_id}"
    console.print(stored, markup=False, soft_wrap=True)
    console.print(f"Next: {following.words}\n  {following.command}", markup=False, soft_wrap=True)


def index_of(version: ModelVersion) -> Index:
    """The version's index with its deltas. Raises ShoplensError if it has none, or the index of another version."""
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
    """`NAME/VERSION` of each. Raises ShoplensError if one version is named twice."""
    from shoplens.errors import ShoplensError

    names = [str(version) for version in versions]
    if len(set(names)) < len(names):
        raise ShoplensError(f"--model and --against are one version, {names[0]}: name two")
    return names


def logged(dataset: Dataset, settings: object, events: str | None) -> Log | None:
    """The clicks that judge the lists, if there are any."""
    from shoplens.experiments.event_log import read
    from shoplens.search.lists.evaluation import LogConfig, log_of_events, log_of_sessions

    assert isinstance(settings, LogConfig)
    if events is not None:
        return log_of_events(read(events), settings)
    if settings.clicks == "session":
        return log_of_sessions(dataset.table("interactions"), settings)
    return None


def advice(versions: list[ModelVersion], evaluation: Evaluation, again: str) -> Advice:
    """The next step after an evaluation, with its command; `again` is the command of this one."""
    from shoplens.errors import ShoplensError
    from shoplens.registry.versions import resolve
    from shoplens.search.lists.report import Advice

    version, k = versions[0], evaluation.about["k"]
    violations = evaluation.metrics.get(f"lists/violations@{k}")
    if violations is not None and violations.value:
        build = f"python -m workloads.build_index --model {version} dataset={evaluation.about['dataset_path']}"
        return Advice("some results break a rule: build the index again, then evaluate it again", build)
    if len(versions) == 1:
        try:
            champion = str(resolve(f"{version.name}@champion"))
        except ShoplensError:
            champion = str(version)
        if champion != str(version):
            return Advice("compare it with the champion", f"{again} --against {champion}")
    promote = f"shoplens promote {version.name} {version.version} --alias champion"
    return Advice("look at the lists in the report; gates can check its metrics (`promotion:`)", promote)


if __name__ == "__main__":
    run(main, __doc__)
