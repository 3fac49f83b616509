"""Evaluates a registered model on a dataset. Figures and report go to the run that trained the model.

`dataset=DIR` is needed, `split=test` is the default. `evaluation.KEY=VALUE` overrides the settings of the training:
`evaluation.tasks=all` adds clustering, attributes, categories and (with `evaluation.restricted=CATEGORY`) restricted
products to retrieval and matching.

Example:

    python -m workloads.evaluate --model eclip@candidate dataset=$PWD/data/shop
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from workloads.job import Settings, connect, run


def main(
    settings: Settings,
    model: Annotated[str, typer.Option(help="Registered model, such as eclip@champion or models:/eclip/3.")],
) -> None:
    from shoplens import recipes
    from shoplens.config import Config, override, validate
    from shoplens.datasets.format import Dataset
    from shoplens.evaluation.table import table
    from shoplens.registry.evaluations import store_evaluation
    from shoplens.registry.versions import cache_dir, download, resolve

    class Evaluated(Config):
        dataset: str
        split: str = "test"
        evaluation: dict[str, Any] = {}

    chosen = validate(Evaluated, override({}, settings), "the command line")
    connect()
    version = resolve(model)
    package = download(version, cache_dir())
    dataset = Dataset(chosen.dataset)
    evaluation, report = recipes.evaluate(package, dataset, chosen.split, str(version), chosen.evaluation)
    folder = store_evaluation(version, evaluation, report)
    print(table(evaluation))
    print(f"{version} on {dataset.name}, split {chosen.split}: report.html is in {folder} of run {version.run_id}")


if __name__ == "__main__":
    run(main, __doc__)
