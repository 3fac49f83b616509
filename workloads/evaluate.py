"""Evaluates a registered model on a dataset; figures and report go to the run that trained it.

`evaluation.KEY=VALUE` stands before what the model was trained with: `evaluation.tasks=all` adds clustering,
attributes, categories and (with `evaluation.restricted=CATEGORY`) restricted products to retrieval and matching.
"""

from __future__ import annotations

from typing import Any

from workloads.job import connect, parse, parser, run


def main() -> None:
    arguments = parser("workloads.evaluate", __doc__)
    arguments.add_argument("--model", required=True, help="models:/eclip@champion, eclip/3, ...")
    given = parse(arguments)

    from shoplens import recipes
    from shoplens.config import Config, override, validate
    from shoplens.datasets.format import Dataset
    from shoplens.evaluation.table import table
    from shoplens.registry.evaluations import store_evaluation
    from shoplens.registry.versions import cache_dir, download, resolve

    class Settings(Config):
        dataset: str
        split: str = "test"
        evaluation: dict[str, Any] = {}

    settings = validate(Settings, override({}, given.assignments), "the command line")
    connect()
    version = resolve(given.model)
    package = download(version, cache_dir())
    dataset = Dataset(settings.dataset)
    evaluation, report = recipes.evaluate(package, dataset, settings.split, str(version), settings.evaluation)
    folder = store_evaluation(version, evaluation, report)
    print(table(evaluation))
    print(f"{version} on {dataset.name}, split {settings.split}: report.html is in {folder} of run {version.run_id}")


if __name__ == "__main__":
    run(main)
