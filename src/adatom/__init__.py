"""adatom: from microscope frames to simulations and back.

>>> import adatom as ad
>>> ad.find.__module__
'adatom.api.frames'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adatom.errors import AdatomError
from adatom.version import __version__

if TYPE_CHECKING:
    from adatom.api import (
        adapt,
        adsorb,
        advise,
        barrier,
        describe,
        displacement_threshold,
        encode_patches,
        environments,
        example_frames,
        fate,
        find,
        find_defects,
        fit_groups,
        identify,
        patches,
        read,
        simulate,
        supercells,
        vibrate,
    )

__all__ = [
    "AdatomError",
    "__version__",
    "adapt",
    "adsorb",
    "advise",
    "barrier",
    "describe",
    "displacement_threshold",
    "encode_patches",
    "environments",
    "example_frames",
    "fate",
    "find",
    "find_defects",
    "fit_groups",
    "identify",
    "patches",
    "read",
    "simulate",
    "supercells",
    "vibrate",
]


def __getattr__(name: str) -> Any:
    # Networks and engines take seconds to import: only when a step is used.
    if name in __all__:
        from adatom import api

        return getattr(api, name)
    raise AttributeError(f"module 'adatom' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
