"""The curation of raw records: tables of photos, documents and clicks become clean shards and a dataset.

The steps, each a function of plain files that knows no Ray:

| module | what it does |
| --- | --- |
| tables | reads the raw tables and numbers their rows |
| measuring | measures photos and texts, part by part; what was measured is kept |
| duplicates | groups photos that show the same picture |
| cutting | applies the rules to photos and texts |
| joining | brings photos, titles and queries together |
| learned | measures what needs a model, for photos that are left |
| choosing | applies the limits to it, and chooses the texts of each photo |
| shards | writes the shards and tables of the dataset |
| report | shows what was lost where |
"""
