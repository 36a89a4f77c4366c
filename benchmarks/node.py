"""Waiting `4+7` tasks done by two worker processes, beside peers that run on node.

They are measured where BENCH_NODE names a folder in which their packages are installed:
npm install --prefix FOLDER graphile-worker@0.17.3 bullmq@6.7.0 ioredis
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import drain
from benchmarks.harness import PATIENCE, Environ, Options, Processes, Servers, paused, progress
from benchmarks.peers import clock
from benchmarks.table import Row, compared
from tests.support.processes import ROOT, eventually

SCRIPTS = ROOT / "benchmarks" / "peers" / "node"


@dataclass(frozen=True)
class Peer:
    name: str
    goal: float  # our rate, in its own
    script: str
    environ: Environ = field(default_factory=dict)


PEERS = (
    Peer("BullMQ, 8 at once", 1, "bullmq.mjs", {"AT_ONCE": "8"}),
    Peer("BullMQ, 50 at once", 1, "bullmq.mjs", {"AT_ONCE": "50"}),
    Peer("Graphile Worker, 8 at once", 3.5, "graphile.mjs", {"AT_ONCE": "8"}),
    Peer("Graphile Worker, in batches", 0.45, "graphile.mjs", {"AT_ONCE": "8", "BATCHES": "1"}),
)


def run(servers: Servers, options: Options) -> Iterable[Row]:
    packages = os.environ.get("BENCH_NODE")
    if not packages:
        progress("no peers on node: BENCH_NODE names no folder with their packages")
        return
    count = options.size(20_000, 5_000)
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *(peer.name for peer in PEERS))}
    with TemporaryDirectory(dir=packages) as folder:  # node looks for packages from where the script is
        shutil.copytree(SCRIPTS, folder, dirs_exist_ok=True)
        for _ in range(options.size(3, 1)):
            rates["ours"].append(drain.drain_ours(servers, count))
            for peer in PEERS:
                rates[peer.name].append(_drain(servers, Path(folder), peer, count))
            progress(", ".join(f"{name} {some[-1]:,.0f}/s" for name, some in rates.items()))
    for peer in PEERS:
        yield compared(f"drain {count:,}", rates["ours"], peer.name, rates[peer.name], goal=peer.goal)


def _drain(servers: Servers, scripts: Path, peer: Peer, count: int) -> float:
    """Tasks a second, from the first start to the last end."""
    with servers.fresh(template="template0") as given, TemporaryDirectory() as clocks, Processes() as processes:
        environ = given | {"CLOCKS": clocks, "VALKEY_SOCKET": given["REDIS_URL"].removeprefix("unix://")} | peer.environ
        command = "node", str(scripts / peer.script)
        _call(*command, "prepare", environ=environ)
        processes.start([str(scripts / peer.script), "work"], environ, "ready", number=drain.PROCESSES, python="node")
        with paused(processes):
            _call(*command, "publish", str(count), environ=environ)
        eventually(lambda: clock.done(Path(clocks)) == count, within=PATIENCE)
        return count / clock.seconds(Path(clocks))


def _call(*command: str, environ: Environ) -> None:
    subprocess.run(command, env=os.environ | environ, check=True, timeout=PATIENCE)
