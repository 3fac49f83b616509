"""Processes that compute together in a test."""

from __future__ import annotations

from collections.abc import Callable

from torch import multiprocessing

PRELOADED = [
    "hypothesis",
    "pytest",
    "timm",
    "transformers.models.bert.modeling_bert",
    "shoplens.recipes.clik",
    "shoplens.recipes.eclip",
    "shoplens.recipes.similar",
]
"""What the tests of such processes import, directly or not."""


def together(function: Callable[..., None], world: int, *arguments: object) -> None:
    """Calls `function(rank, *arguments)` in `world` processes and waits for them; raises what one of them raises.

    A server that has imported `PRELOADED` once forks them. Processes of their own would import it each, for seconds.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    multiprocessing.start_processes(function, arguments, nprocs=world, start_method="forkserver")
