"""MkDocs hook: generates the reference pages and puts them into the navigation under Reference."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform")]

from generate import commands, http, python, settings  # noqa: E402


def on_startup(**_: object) -> None:
    """Docstrings write shapes as `[rows][columns]`, which Markdown takes for references: those are no faults."""
    logging.getLogger("mkdocs.plugins.mkdocs_autorefs._internal.plugin").addFilter(
        lambda record: f"from {ROOT / 'platform'}" not in record.getMessage()
    )


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds every generated page, in the order in which the navigation shows them."""
    sections = {
        "Settings": settings.pages(),
        "HTTP API": http.pages(),
        "Commands": commands.pages(ROOT),
        "Python": python.pages(),
    }
    reference = next(entry for entry in config.nav or () if "Reference" in entry)["Reference"]
    reference.clear()
    for section, pages in sections.items():
        entries = []
        for title, name, text in pages:
            path = f"reference/{name}.md"
            files.append(File.generated(config, path, content=text))
            entries.append({title: path})
        reference.append({section: entries} if len(entries) > 1 else {section: entries[0].popitem()[1]})
    return files
