"""Worker process of the engine `gpaw`: JSON lines in, JSON lines out.

It runs under the Python that has GPAW, which need not be the one that runs adatom, and therefore
imports nothing of adatom. Every line that it reads is one request::

    {"numbers": […], "positions": [[…]], "cell": [[…]], "pbc": […], "magmoms": […] or null,
     "parameters": {"mode": …, "xc": …, "kpts": […], "smearing_eV": …, "mixing": … or null, …}}

and every line that it writes is the answer: energy, forces, moments; or ``error`` and ``message``.
Lengths are in Å, energies in eV, forces in eV/Å, moments in µB. The calculation of the previous
request is the start of the next one where only the positions changed. It ends at the end of its
input.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
from typing import Any, TextIO


def main() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever GPAW prints goes to stderr, not between the answers
    if sys.platform.startswith("linux"):  # die with adatom, also where that is killed
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 (any Python)
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]  # noqa: PTH100
    import gpaw  # not the module of that name beside this file

    say(answers, {"ready": gpaw.__version__})
    state: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            answer = compute(json.loads(line), state)
        except Exception as error:  # noqa: BLE001 (any failure is an answer)
            state.clear()
            answer = {"error": type(error).__name__, "message": str(error).strip()[:500]}
        say(answers, answer)


def say(stream: TextIO, answer: dict[str, Any]) -> None:
    """Write one line."""
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


def compute(request: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Run one self-consistent calculation; keep the calculator for the next one."""
    from ase import Atoms

    fixed = {k: request[k] for k in ("numbers", "cell", "pbc", "magmoms", "parameters")}
    if state.get("fixed") == fixed:
        atoms = state["atoms"]
        atoms.set_positions(request["positions"])
    else:
        state.clear()
        atoms = Atoms(
            numbers=request["numbers"],
            positions=request["positions"],
            cell=request["cell"],
            pbc=request["pbc"],
        )
        if request["magmoms"] is not None:
            atoms.set_initial_magnetic_moments(request["magmoms"])
        atoms.calc = make_calculator(request["parameters"], spin=request["magmoms"] is not None)
        state.update(fixed=fixed, atoms=atoms)
    energy = float(atoms.get_potential_energy())
    answer = {
        "energy": energy,
        "forces": atoms.get_forces().tolist(),
        "iterations": int(atoms.calc.get_number_of_iterations()),
    }
    if request["magmoms"] is not None:
        answer["magmom"] = float(atoms.get_magnetic_moment())
        answer["magmoms"] = [float(m) for m in atoms.get_magnetic_moments()]
    return answer


def make_calculator(p: dict[str, Any], *, spin: bool) -> Any:
    """Make GPAW's calculator from plain parameters."""
    from gpaw import GPAW, FermiDirac, Mixer, MixerSum

    settings: dict[str, Any] = {
        "xc": p["xc"],
        "kpts": {"size": p["kpts"], "gamma": True},
        "occupations": FermiDirac(p["smearing_eV"]),
        "spinpol": spin,
        "maxiter": p["maxiter"],
        "txt": None,
    }
    if p["mode"] == "pw":
        settings["mode"] = {"name": "pw", "ecut": p["cutoff_eV"]}
    else:
        settings["mode"] = p["mode"]
        settings["h"] = p["spacing_A"]
    if p["mode"] == "lcao":
        settings["basis"] = "dzp"
    if p["mixing"] is not None:
        # Small steps, and a strong metric against charge that sloshes.
        kind = MixerSum if spin else Mixer
        settings["mixer"] = kind(beta=p["mixing"], nmaxold=5, weight=100.0)
    return GPAW(**settings)


if __name__ == "__main__":
    main()
