"""adatom: from microscope frames to simulations and back.

>>> import adatom as ad
>>> ad.find.__module__
'adatom.campaign.face'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adatom.campaign.face import (
        adapt,
        advise,
        example_frames,
        find,
        find_defects,
        read,
        simulate,
        supercells,
    )

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "adapt",
    "advise",
    "example_frames",
    "find",
    "find_defects",
    "read",
    "simulate",
    "supercells",
]


def __getattr__(name: str) -> Any:
    # Networks and engines take seconds to import: only when a step is used.
    if name in __all__:
        from adatom.campaign import face

        return getattr(face, name)
    raise AttributeError(f"module 'adatom' has no attribute {name!r}")
