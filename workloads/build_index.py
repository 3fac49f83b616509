"""Embeds the products of a dataset with a registered model and writes the index that search answers from.

The index belongs to that one version. Endpoints serve the two together or not at all. A model of photos gives a vector
for each photo, a model of photo and text one for the photo with its product's text, a model of texts one for the
product's text.

| setting | meaning |
| --- | --- |
| `dataset=DIR` | the dataset whose products can be found (needed) |
| `splits=[train,test]` | only the photos of these splits |
| `storage=float16` | half the memory of float32; `int8` takes a quarter |
| `components.duplicate_bits=2` | photos are the same if their hashes differ in at most 2 bits; null: products share none |
| `components.cosine=0.95` | and if their vectors have at least this cosine |
| `components.most=20` | a photo of more than 20 products is a placeholder |
| `rings={alpha: 1, beta: 1, gamma: 1}` | weights of photos, common clicks and the tree for similar categories |
| `rings.nearest=20` | similar categories before the search goes on through the ancestors |
| `rings=tree` | search goes through the ancestors only |
| `approximate.recall=0.98` | ranges of 20,000 products and more use inverted lists; without it every search is exact |
| `approximate.least=100000` | only larger ranges use them |

Example:

    python -m workloads.build_index --model eclip@candidate dataset=$PWD/data/shop
"""

from __future__ import annotations

from typing import Annotated

import typer

from workloads.job import Settings, connect, lines, run, storage


def main(
    settings: Settings,
    model: Annotated[str, typer.Option(help="Registered model, such as eclip@champion or models:/eclip/3.")],
) -> None:
    from shoplens.config import override, validate
    from shoplens.datasets.format import Dataset
    from shoplens.datasets.samples import Samples
    from shoplens.packages.embedding import embed_products
    from shoplens.registry.runs import client
    from shoplens.registry.versions import cache_dir, download, resolve
    from shoplens.search.build import IndexConfig, build

    class Built(IndexConfig):
        """`splits`: which photos can be found; all of them if left out."""

        dataset: str
        splits: tuple[str, ...] | None = None

    chosen = validate(Built, override({}, settings), "the command line")
    dataset = Dataset(chosen.dataset)
    connect()
    version = resolve(model)
    package = download(version, cache_dir())
    samples = Samples.of(dataset, chosen.splits or list(dataset.manifest.photos_by_split)).sample
    vectors = embed_products(dataset, samples, package, progress=lines("embedding", "photos", len(samples)))
    folder = storage() / "indexes" / version.name / str(version.version)
    about = {
        "model": version.name,
        "version": version.version,
        "dataset": dataset.name,
        "dataset_path": dataset.path,
        "dataset_digest": dataset.digest,
    }
    built = build(folder, dataset, samples, vectors, about, chosen)
    client().set_model_version_tag(version.name, str(version.version), "index", str(folder))
    print(
        f"index for {version} in {folder}: {built}. "
        f"Next: shoplens promote {version.name} {version.version} --alias champion",
        flush=True,
    )


if __name__ == "__main__":
    run(main, __doc__)
