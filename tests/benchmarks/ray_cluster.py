"""A sweep on a Ray cluster of two nodes; the process of one run is killed.

``python tests/benchmarks/ray_cluster.py WORD...`` carries out the command of these words,
which end with ``--out FOLDER``, on a cluster of its own. Once the run of Naive has
finished an experience, its process is killed. The last line says on how many nodes the
runs were.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
from sweep_runs import SECONDS, wait_for

from benchmarks.sweep.on_ray import ENVIRONMENT

if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)  # before Ray is imported
    os.environ["RAY_DISABLE_IMPORT_WARNING"] = "1"
    from ray.cluster_utils import Cluster

    from benchmarks.__main__ import main

    out = Path(sys.argv[-1])
    nodes: set[int] = set()

    def runs() -> list[psutil.Process]:
        """Processes of tasks."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "run_in_worker" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def kill() -> None:
        """Kill the run of Naive as soon as there is something to lose."""
        while len(nodes) < 2:
            nodes.update(process.ppid() for process in runs())
            time.sleep(0.05)
        wait_for(out / "naive" / "0", 1)
        log = str((out / "naive" / "0" / "output.txt").resolve())
        [naive] = [p for p in runs() if log in {f.path for f in p.open_files()}]
        naive.kill()

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    killer = threading.Thread(target=kill)
    killer.start()
    code = main(["sweep", *sys.argv[1:], "--address", cluster.address])
    killer.join(SECONDS)
    cluster.shutdown()
    print(json.dumps({"code": code, "nodes": len(nodes)}))
