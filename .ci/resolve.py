"""Check that constraints.txt can be installed on every supported Python and system.

For each, the packages that adatom needs there are listed from the metadata of the installed ones,
with their environment markers evaluated for that system, and pip is asked for wheels of exactly the
pinned versions. Run it in an environment with adatom: `.venv/bin/python .ci/resolve.py`.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXTRAS = ("nion", "tango")  # what a user installs beside a microscope
PYTHONS = ("3.11", "3.12", "3.13")
# Tags of wheels, newest system first, and the values of markers.
SYSTEMS = {
    "Linux x86_64": (
        [f"manylinux_2_{n}_x86_64" for n in (28, 27, 26, 24, 17, 12, 5)],
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    ),
    "Linux aarch64": (
        [f"manylinux_2_{n}_aarch64" for n in (28, 27, 26, 24, 17)],
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    ),
    "macOS arm64": (
        [f"macosx_{n}_0_{m}" for n in (15, 14, 13, 12, 11) for m in ("arm64", "universal2")]
        + [f"macosx_10_{n}_universal2" for n in (15, 13, 12, 9)],
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    ),
    "Windows x86_64": (
        ["win_amd64"],
        {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64"},
    ),
}


def environment(python: str, markers: dict[str, str]) -> dict[str, str]:
    """Values of all markers on a system."""
    windows = markers["sys_platform"] == "win32"
    return {
        **markers,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "nt" if windows else "posix",
    }


def pins(where: dict[str, str]) -> dict[str, str]:
    """Pinned version of each package whose marker fits a system."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {
        canonicalize_name(r.name): f"{r.name}{r.specifier}"
        for r in wanted
        if r.marker is None or r.marker.evaluate(where)
    }


def needed(where: dict[str, str]) -> set[str]:
    """Names of all packages that adatom needs on a system, its own dependencies first."""
    found: set[str] = set()
    waiting = [("adatom", extra) for extra in ("", *EXTRAS)]
    while waiting:
        name, extra = waiting.pop()
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # needed on that system alone: pip finds its version
        for requirement in map(Requirement, requires):
            fits = requirement.marker is None or requirement.marker.evaluate(
                {**where, "extra": extra}
            )
            key = canonicalize_name(requirement.name)
            if fits and key not in found:
                found.add(key)
                waiting += [(key, each) for each in ("", *requirement.extras)]
    return found


def check(python: str, system: str) -> str:
    """Ask pip for the wheels of one system; gives what is wrong, empty if nothing is."""
    tags, markers = SYSTEMS[system]
    where = environment(python, markers)
    known = pins(where)
    wanted = sorted(known[name] for name in needed(where) if name in known)
    with tempfile.TemporaryDirectory() as target:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet",
             "--ignore-installed", "--target", target, "--only-binary=:all:",
             "--python-version", python, "--implementation", "cp",
             *[part for tag in tags for part in ("--platform", tag)], *wanted],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    print(f"Python {python}, {system}: {len(wanted)} packages, {errors or 'all there'}", flush=True)
    return "\n".join(errors) if done.returncode else ""


def main() -> None:
    """Check every system; exit code 1 where a wheel is missing."""
    jobs = [(python, system) for python in PYTHONS for system in SYSTEMS]
    with ThreadPoolExecutor(2) as pool:
        wrong = [found for found in pool.map(lambda job: check(*job), jobs) if found]
    sys.exit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
