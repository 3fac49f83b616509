"""Trains a recipe on Ray Train, evaluates what came of it and registers it as a new version."""

from __future__ import annotations

import functools
import shutil

from workloads.job import connect, parse, parser, run, storage


def main() -> None:
    arguments = parser("workloads.train", __doc__)
    arguments.add_argument("config", help="a file like workloads/configs/eclip.yaml")
    arguments.add_argument("--resume", metavar="RUN_ID", help="go on with a run that was cut off")
    arguments.add_argument("--workers", type=int, help="training workers (default: the cluster file's)")
    given = parse(arguments)

    from shoplens import recipes
    from shoplens.cluster.file import train_workers
    from shoplens.config import override, read_yaml
    from shoplens.errors import ShoplensError
    from shoplens.evaluation.table import table
    from shoplens.registry import runs
    from shoplens.registry import versions as packages
    from shoplens.registry.evaluations import store_evaluation
    from shoplens.training.ray.trainer import Workers, train

    if "=" in given.config:
        raise ShoplensError("name the configuration first: workloads/configs/eclip.yaml")
    tree = override(read_yaml(given.config), given.assignments)
    if not tree.get("dataset"):
        raise ShoplensError("which dataset? Add dataset=DIR (an absolute path, or a URI that the cluster reaches)")
    connect()
    model, start = tree.get("model"), None
    if isinstance(model, dict) and str(model.get("start_from")).startswith("models:/"):
        start = packages.resolve(model["start_from"])
        model["start_from"] = str(packages.download(start, packages.cache_dir()).absolute())
    recipe = recipes.find(tree.get("recipe")).load(tree, given.config)
    recipe.check()
    plan = train_workers()
    workers = Workers(
        count=given.workers or plan.num_workers,
        use_gpu=plan.use_gpu,
        cpus=plan.resources_per_worker.get("CPU", 1),
    )
    config = recipe.config.model_dump(mode="json")
    if given.resume:
        runs.take_up(given.resume, config)
    run_id = given.resume or runs.start_run(config["recipe"], config["name"], config, recipe.dataset)
    if start is not None:
        runs.client().set_tag(run_id, "start_from", str(start))
    print(
        f"run {run_id}: {config['recipe']} on {recipe.dataset.name}, "
        f"{recipe.training.epochs} epochs, {recipe.timeline.total} steps, {workers.count} worker(s)",
        flush=True,
    )
    try:
        if not given.resume:
            first = recipe.collate(recipe.plan(0)[0], 0)
            if (picture := recipe.preview(first)) is not None:
                runs.client().log_image(run_id, picture, "sample_batch.png")
        model, summary = train(
            recipe,
            name=run_id,
            storage=storage() / "runs",
            workers=workers,
            open_curves=functools.partial(runs.MetricLog, run_id),
        )
        for key, value in summary.items():
            runs.client().log_metric(run_id, f"summary/{key.removeprefix('train/')}", value)
        package = storage() / "packages" / run_id
        shutil.rmtree(package, ignore_errors=True)
        recipe.save(model, package)
        split = config["evaluation"]["split"]
        evaluation, report = recipes.evaluate(package, recipe.dataset, split, f"run {run_id}")
        version = packages.resolve(f"{config['name']}/{packages.register(run_id, config['name'], package)}")
        store_evaluation(version, evaluation, report)
    except BaseException:
        runs.finish(run_id, "FAILED")
        print(f"the run can go on: add --resume {run_id}", flush=True)
        raise
    runs.finish(run_id)
    print(table(evaluation))
    print(f"registered {version}. Next: shoplens promote {version.name} {version.version} --alias champion", flush=True)


if __name__ == "__main__":
    run(main)
