"""A program with the simulated specimen in a process of its own, which ends with who started it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import weakref
from typing import IO, Any

from pydantic import TypeAdapter

from adatom.core import Material
from adatom.errors import BadInput
from adatom.instrument.twin_options import TwinOptions

READY = "adatom: "  # begins the line that says the address
_START_S = 120.0  # s: Nion Swift starts in 5 s; a loaded computer may take longer
_END_S = 10.0  # s: longest wait for an end in order


class HostedProcess:
    """A running program.

    Parameters
    ----------
    module
        Python module to run. It reads one line of settings, says its address after `READY`, and
        ends when its input does.
    subject
        Its name in messages.
    extra
        adatom's extra that it needs.
    twin, material, seed
        The specimen.
    more
        Further settings, plain numbers and texts.

    Attributes
    ----------
    address
        Where it listens.
    end
        Ends it; called at the latest when this object is gone.

    Raises
    ------
    BadInput
        If it does not start.
    """

    def __init__(
        self, module: str, subject: str, extra: str, twin: TwinOptions, material: Material,
        seed: int, **more: Any,
    ) -> None:  # fmt: skip
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        self._process = subprocess.Popen(  # noqa: S603  # a module of adatom
            [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.end = weakref.finalize(self, _end, self._process)
        told = {
            "twin": twin.model_dump(mode="json"), "seed": seed, **more,
            "material": TypeAdapter(Material).dump_python(material, mode="json"),
        }  # fmt: skip
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        with contextlib.suppress(OSError):  # it ended already: the address does not come
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
        self.address = self._address(subject, extra)

    def _address(self, subject: str, extra: str) -> str:
        assert self._process.stdout is not None  # noqa: S101  # it is a pipe
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_pass_on, args=(self._process.stdout, lines), daemon=True).start()
        try:
            while line := lines.get(timeout=_START_S):
                if line.startswith(READY):
                    return line.removeprefix(READY).strip()
            got = f"it ended: {self._last_words()}"
        except queue.Empty:
            got = f"nothing within {_START_S:g} s"
        self.end()
        raise BadInput(
            subject, expected="that it starts", got=got,
            todo=f"Install the versions that fit together: pip install 'adatom[{extra}]'.",
        )  # fmt: skip

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"


def specimen(told: dict[str, Any]) -> tuple[TwinOptions, Material, int]:
    """Read the specimen from the line of settings: twin, material, seed."""
    material = TypeAdapter(Material).validate_python(told["material"])
    return TwinOptions(**told["twin"]), material, int(told["seed"])


def _pass_on(lines: IO[str], to: queue.SimpleQueue[str]) -> None:
    """Pass lines on to who waits; read on afterwards, so that nothing waits for its output."""
    for line in lines:
        to.put(line)
    to.put("")


def _end(process: subprocess.Popen[str]) -> None:
    """End the process: it turns the beam off when its input ends."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
