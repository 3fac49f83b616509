"""Embeds the photos of a dataset with a registered model and writes the index that search answers from.

The index belongs to that one version: endpoints serve the two together or not at all. `key=value` changes what is
built:

  dataset=DIR                   whose products can be found (needed)
  splits=[train,test]           only the photos of these splits
  storage=float16               half the memory of float32; int8 takes a quarter
  components.duplicate_bits=2   photos are the same whose hashes differ by so many bits; null: products share none
  components.cosine=0.95        and whose vectors have this cosine
  components.most=20            a photo that more products show is a placeholder
  'rings={alpha: 1, beta: 1, gamma: 1}'
                                a search widens to similar categories: by photos, by common clicks, by the tree
  rings.nearest=20              to so many before it goes on through the ancestors
  rings=tree                    through the ancestors only
  approximate.recall=0.98       ranges of 20,000 products and more are searched by inverted lists; without, exactly
  approximate.least=100000      only larger ones are
"""

from __future__ import annotations

from workloads.job import connect, lines, parse, parser, run, storage


def main() -> None:
    arguments = parser("workloads.build_index", __doc__)
    arguments.add_argument("--model", required=True, help="models:/eclip@champion, eclip/3, ...")
    given = parse(arguments)

    from shoplens.config import override, validate
    from shoplens.datasets.format import Dataset
    from shoplens.datasets.samples import Samples
    from shoplens.packages.embedding import embed_products
    from shoplens.registry.runs import client
    from shoplens.registry.versions import cache_dir, download, resolve
    from shoplens.search.build import IndexConfig, build

    class Settings(IndexConfig):
        """`splits`: which photos can be found; all of them if left out."""

        dataset: str
        splits: tuple[str, ...] | None = None

    settings = validate(Settings, override({}, given.assignments), "the command line")
    dataset = Dataset(settings.dataset)
    connect()
    version = resolve(given.model)
    package = download(version, cache_dir())
    samples = Samples.of(dataset, settings.splits or list(dataset.manifest.photos_by_split)).sample
    vectors = embed_products(dataset, samples, package, progress=lines("embedding", "photos", len(samples)))
    folder = storage() / "indexes" / version.name / str(version.version)
    about = {
        "model": version.name,
        "version": version.version,
        "dataset": dataset.name,
        "dataset_path": dataset.path,
        "dataset_digest": dataset.digest,
    }
    built = build(folder, dataset, samples, vectors, about, settings)
    client().set_model_version_tag(version.name, str(version.version), "index", str(folder))
    print(
        f"index for {version} in {folder}: {built}. "
        f"Next: shoplens promote {version.name} {version.version} --alias champion",
        flush=True,
    )


if __name__ == "__main__":
    run(main)
