"""Peers live in virtual environments of their own, made here; torch is shared with the one that asks."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ENVIRONMENTS = Path(os.environ.get("SHOPLENS_PEERS", Path(__file__).parents[1] / ".shoplens/peers"))

OPEN_CLIP = ("open_clip_torch==3.3.0", "ftfy", "regex", "wcwidth")


def environment(name: str, packages: tuple[str, ...]) -> Path:
    """The Python of a peer's environment: `packages` without what they need, since the rest is shared."""
    folder = ENVIRONMENTS / name
    python = folder / "bin/python"
    if not (folder / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", *packages]
        subprocess.run(install, check=True)
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
        (folder / ".ready").touch()
    return python
