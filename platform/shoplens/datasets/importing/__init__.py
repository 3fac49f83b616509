"""Importers: they convert a catalog to the on-disk format, and list everything that they left out.

Each row of `rejects` has a `reason` and a `detail`, which says what was wrong and what to do:

| reason | what was left out |
| --- | --- |
| malformed_row | a line that is not JSON or CSV, is not an object, or has another number of cells than the header |
| invalid_row | a row that is not a valid product, topic or event; the detail names the field |
| duplicate_product, duplicate_image, duplicate_topic | an id that an earlier row has |
| category | a product whose category path or id conflicts with an earlier product |
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
from shoplens.datasets.importing.shards import PhotoRules

__all__ = ["SOURCES", "PhotoRules", "import_dataset", "summary"]
