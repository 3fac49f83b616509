"""Importers: they convert a catalog to the on-disk format, and list everything that they left out.

Each row of `rejects` has a `reason` and a `detail`, which says what was wrong and what to do. Two reasons are notes; the
product or event was kept:

| reason | what was noted |
| --- | --- |
| field | an optional field that cannot be used was left empty, cut, or replaced; the detail names it |
| quotes | a line whose quotes do not pair was read as it stands |

The others name what was kept out:

| reason | what was left out |
| --- | --- |
| malformed_row | a line that is not JSON or CSV, is not an object, has another number of cells than the header, or is too long |
| invalid_row | a product without a valid id or title, a topic or an event without a field that it needs |
| duplicate_product, duplicate_image, duplicate_topic | an id that an earlier row has |
| unknown_product | a photo or an event of a product that the source does not have |
| no_photo | a product without a usable photo |
| no_text | a WebDataset sample without text |
| hidden_file | a photo or text in a shard whose name, or folder's name, starts with a dot |
| broken_shard | the rest of a tar that breaks off |
| invalid_photo | a photo entry that is not a path or URL |
| outside_source | a photo path or link that leads out of the source folder |
| missing_file, empty, too_large, unreadable, truncated, checksum, format | a photo file that cannot be read |
| too_many_pixels, too_small | a photo that has too many or too few pixels |
| duplicate_photo | a photo that its product already has, byte for byte, in any split |
| url, url_* | a photo whose URL was not fetched; see `shoplens.datasets.fetch` |
"""

from shoplens.datasets.importing.job import SOURCES, import_dataset, summary
from shoplens.datasets.photo_files import PhotoRules

__all__ = ["SOURCES", "PhotoRules", "import_dataset", "summary"]
