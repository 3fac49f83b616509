"""Trains a recipe on Ray Train, evaluates the model and registers it as a new version.

Any setting of the configuration may be given as `key.sub=value`, such as `training.epochs=20`. A run that was cut off
goes on with `--resume RUN_ID`, with the same settings.

Example:

    python -m workloads.train workloads/configs/eclip.yaml dataset=$PWD/data/shop training.epochs=20
"""

from __future__ import annotations

import functools
import shutil
from typing import Annotated

import typer

from workloads.job import Settings, connect, run, storage


def main(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="Configuration, such as workloads/configs/eclip.yaml.")
    ],
    settings: Settings,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN_ID", help="Continue this run from its last checkpoint.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Training workers. Default: those of the cluster file.")
    ] = None,
) -> None:
    import ray

    from shoplens import recipes
    from shoplens.cluster.file import current
    from shoplens.config import override, read_yaml
    from shoplens.errors import ShoplensError
    from shoplens.evaluation.table import table
    from shoplens.registry import runs
    from shoplens.registry import versions as packages
    from shoplens.registry.evaluations import store_evaluation
    from shoplens.training.parts import Parts
    from shoplens.training.ray import trainer

    parts = Parts()
    parts.end("imports")

    if "=" in config:
        raise ShoplensError("name the configuration first: workloads/configs/eclip.yaml")
    tree = override(read_yaml(config), settings)
    if not tree.get("dataset"):
        raise ShoplensError("which dataset? Add dataset=DIR (an absolute path, or a URI that the cluster reaches)")
    connect()
    parts.end("connection")
    model, start = tree.get("model"), None
    if isinstance(model, dict) and str(model.get("start_from")).startswith("models:/"):
        start = packages.resolve(model["start_from"])
        model["start_from"] = str(packages.download(start, packages.cache_dir()).absolute())
    recipe = recipes.find(tree.get("recipe")).load(tree, config)
    recipe.check()
    cluster = current(check_serve=False)
    plan = cluster.train
    resources = trainer.Workers(
        count=workers or plan.num_workers,
        use_gpu=plan.use_gpu,
        cpus=plan.resources_per_worker.get("CPU", 1),
    )
    trainer.check(recipe, resources, None if cluster.kubernetes else ray.cluster_resources())
    chosen = recipe.config.model_dump(mode="json")
    if resume:
        runs.take_up(resume, chosen)
    run_id = resume or runs.start_run(chosen["recipe"], chosen["name"], chosen, recipe.dataset)
    if start is not None:
        runs.client().set_tag(run_id, "start_from", str(start))
    print(
        f"run {run_id}: {chosen['recipe']} on {recipe.dataset.name}, "
        f"{recipe.training.epochs} epochs, {recipe.timeline.total} steps, {resources.count} worker(s)",
        flush=True,
    )
    parts.end("recipe and run")
    try:
        if not resume:
            first = recipe.collate(recipe.plan(0)[0], 0)
            if (picture := recipe.preview(first)) is not None:
                runs.client().log_image(run_id, picture, "sample_batch.png")
        model, summary = trainer.train(
            recipe,
            name=run_id,
            storage=storage() / "runs",
            workers=resources,
            open_curves=functools.partial(runs.MetricLog, run_id),
            parts=parts,
        )
        for key, value in summary.items():
            runs.client().log_metric(run_id, f"summary/{key.removeprefix('train/')}", value)
        package = storage() / "packages" / run_id
        shutil.rmtree(package, ignore_errors=True)
        recipe.save(model, package)
        parts.end("package")
        split = chosen["evaluation"]["split"]
        evaluation, report = recipes.evaluate(package, recipe.dataset, split, f"run {run_id}")
        parts.end("evaluation")
        version = packages.resolve(f"{chosen['name']}/{packages.register(run_id, chosen['name'], package)}")
        store_evaluation(version, evaluation, report)
        parts.end("registration")
        for part, seconds in parts.seconds.items():
            runs.client().log_metric(run_id, f"seconds/{part.replace(' ', '_')}", seconds)
    except BaseException:
        runs.finish(run_id, "FAILED")
        print(f"the run can go on: add --resume {run_id}", flush=True)
        raise
    runs.finish(run_id)
    print(table(evaluation))
    print(f"parts: {parts}")
    print(f"registered {version}. Next: shoplens promote {version.name} {version.version} --alias champion", flush=True)


if __name__ == "__main__":
    run(main, __doc__)
