"""Importers: other people's catalogues into the one on-disk format, with everything unusable listed.

What `rejects` may say under `reason`:

| reason | what was kept out |
| --- | --- |
| malformed_row | a line that is not JSON, not an object, or has not as many cells as the header |
| invalid_row | a row whose fields do not make a product, topic or event; the detail names the field |
| duplicate_product, duplicate_image, duplicate_topic | an id that came before |
| category | a product whose category does not fit into one tree with those before it |
| unknown_product | a photo or an event of a product that the source does not have |
| no_photo | a product without any photo left |
| no_text, broken_shard | a WebDataset sample without text; the rest of a tar that breaks off |
| invalid_photo, outside_source | a photo entry that is no path or URL; a path or link out of the folder |
| missing_file, empty, too_large, unreadable, truncated, format | a photo that cannot be read |
| animated, too_many_pixels, too_small | a photo that moves, or is too large or too small |
| duplicate_photo | a photo that its product has already, byte for byte, in whichever split |
| url, url_* | a photo whose URL was not fetched; see `shoplens.datasets.fetch` |
"""

from shoplens.datasets.importing.job import SOURCES, import_dataset, summary
from shoplens.datasets.importing.shards import PhotoRules

__all__ = ["SOURCES", "PhotoRules", "import_dataset", "summary"]
