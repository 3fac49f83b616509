"""A cluster: the file that describes it, and the processes and Serve applications that run it."""

from collections.abc import Callable

from shoplens.errors import ShoplensError

Report = Callable[[str], None]
"""Takes one line of progress, such as `starting Ray`."""


class ClusterError(ShoplensError):
    """Ray, MLflow or an application did not start or does not answer; the message says which and why."""
