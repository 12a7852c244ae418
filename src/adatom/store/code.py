"""A hash of adatom's own source: results are made again when the code behind them changes."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from adatom.version import __version__

_ROOT = Path(__file__).parents[1]
_KINDS = frozenset({".py", ".toml", ".html", ".css"})  # what computes, and what it reads


@cache
def code_hash(*rooms: str) -> str:
    """Hash the source of some packages and modules of adatom, and its version.

    Parameters
    ----------
    rooms
        Names below ``adatom``, such as ``features`` or ``campaign.find``.

    Returns
    -------
    20 hexadecimal digits of SHA-256. An installation without source files has that of its version.

    Raises
    ------
    ValueError
        If there is no such package or module.

    Examples
    --------
    >>> code_hash("features") == code_hash("core")
    False
    """
    digest = hashlib.sha256(__version__.encode())
    for room in rooms:
        place = _ROOT.joinpath(*room.split("."))
        module = place.with_suffix(".py")
        if not place.is_dir() and not module.with_name(f"{module.stem}.py").exists():
            if any(_ROOT.glob("*.py")):
                raise ValueError(f"expected a package or module of adatom, got {room!r}")
            continue
        files = sorted(p for p in place.rglob("*") if p.suffix in _KINDS) if place.is_dir() else []
        for path in files or [module]:
            digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()[:20]
