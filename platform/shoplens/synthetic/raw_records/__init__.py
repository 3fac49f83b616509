"""Raw records as a search company has them before curation: photos, documents, and queries with their clicks.

Flaws of every kind are planted, and tables of the truth name them. So a curation can be judged exactly.
The formats of personal data and the rules that a text breaks come from official descriptions and from the specification of
the curation, not from the detectors: a detector can fail on these records.
"""

from shoplens.synthetic.raw_records.job import synthesize_raw
from shoplens.synthetic.raw_records.settings import RawRecords

__all__ = ["RawRecords", "synthesize_raw"]
