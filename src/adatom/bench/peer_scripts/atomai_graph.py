# /// script
# requires-python = ">=3.11"
# dependencies = ["atomai==0.8.1", "numpy", "scipy"]
# ///
"""AtomAI's graph of atoms and its rings, timed, for `adatom bench defects --peers`.

The script runs in another Python environment, where adatom is not installed. AtomAI's module is
loaded by its file, without the networks that the package imports. The time is that of the processor
for what `find_cycles` does: the graph, its neighbours, its rings of up to eight atoms. Reading the
elements' radii, which AtomAI does once a process, is done before.
"""

import argparse
import importlib.util
import json
import os
import time
from pathlib import Path

# The variables must be set before numpy is imported.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np

LARGEST = 8  # atoms of a ring


def main() -> None:
    """Read positions (atom, 2), Å, from a file; write seconds and rings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("positions", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    package = importlib.util.find_spec("atomai")
    if package is None or package.origin is None:
        raise SystemExit("atomai is not installed")
    file = Path(package.origin).parent / "utils" / "graphx.py"
    spec = importlib.util.spec_from_file_location("graphx", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} cannot be loaded")
    graphx = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(graphx)
    xy = np.load(given.positions, allow_pickle=False)
    atoms = np.concatenate([xy, np.zeros((len(xy), 1))], axis=1)
    graphx.Graph(atoms[:2], {0: "C"}).find_neighbors()
    start = time.process_time()
    graph = graphx.Graph(atoms, {0: "C"})
    graph.find_neighbors()
    graph.polycount(max_depth=LARGEST)
    graph.remove_filled_polygons()
    seconds = time.process_time() - start
    given.out.write_text(json.dumps({"cpu_seconds": seconds, "rings": len(graph.rings)}))


if __name__ == "__main__":
    main()
