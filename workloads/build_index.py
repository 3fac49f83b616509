"""Embeds the photos of a dataset with a registered model and writes the index that search answers from.

The index belongs to that one version: endpoints serve the two together or not at all.
"""

from __future__ import annotations

from workloads.job import connect, parse, parser, run, storage


def main() -> None:
    arguments = parser("workloads.build_index", __doc__)
    arguments.add_argument("--model", required=True, help="models:/eclip@champion, eclip/3, ...")
    given = parse(arguments)

    from shoplens import judging
    from shoplens.config import Config, override, validate
    from shoplens.datasets.format import Dataset
    from shoplens.datasets.samples import Samples
    from shoplens.embedding import embed_photos
    from shoplens.registry.packages import download, resolve
    from shoplens.registry.runs import client
    from shoplens.retrieval.index import Index, items

    class Settings(Config):
        """`splits`: which photos can be found; all of them if left out."""

        dataset: str
        splits: tuple[str, ...] | None = None

    settings = validate(Settings, override({}, given.assignments), "the command line")
    connect()
    version = resolve(given.model)
    package = download(version, judging.cache_dir())
    dataset = Dataset(settings.dataset)
    samples = Samples.of(dataset, settings.splits or list(dataset.manifest.photos_by_split)).sample
    vectors = embed_photos(dataset, samples, package)
    folder = storage() / "indexes" / version.name / str(version.version)
    about = {
        "model": version.name,
        "version": version.version,
        "dataset": dataset.name,
        "dataset_path": dataset.path,
        "dataset_digest": dataset.digest,
    }
    Index.build(folder, vectors, items(dataset, samples), dataset.categories, about)
    client().set_model_version_tag(version.name, str(version.version), "index", str(folder))
    print(
        f"index of {len(samples):,} photos for {version}: {folder}. "
        f"Next: shoplens promote {version.name} {version.version} --alias champion",
        flush=True,
    )


if __name__ == "__main__":
    run(main)
