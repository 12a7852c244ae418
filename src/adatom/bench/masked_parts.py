"""How much of what shows no specimen is masked, and how much of the specimen with it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from adatom.bench.foreign_parts import spoiled_frames
from adatom.bench.rows import Row, row
from adatom.frames.specimen.examine import examine

_FRAMES, _QUICK = 240, 24  # number of frames
_SEED = 3  # the frames that the thresholds were chosen with have others
_MASKED = 0.8  # share of a part from which it counts as masked
_AROUND_PX = 4  # rim around a part that may be masked with it, pixels
_LEAST_PARTS, _MOST_SPECIMEN = 0.9, 0.01  # targets: parts that are masked, specimen that is


def masked_rows(*, quick: bool) -> list[Row]:
    """Rows of every kind of part, over frames of 0.3 to 20 counts at the peak of the host.

    Parameters
    ----------
    quick
        Use a tenth of the frames.
    """
    shares: dict[str, list[tuple[float, float]]] = {}
    for one in spoiled_frames(_QUICK if quick else _FRAMES, _SEED):
        pixels = examine(one.truth.frame).pixels
        assert pixels is not None  # an examined frame has them  # noqa: S101
        masked = pixels.masked
        around = ndimage.binary_dilation(one.foreign, iterations=_AROUND_PX)
        part = float(masked[one.foreign].mean()) if one.foreign.any() else 1.0
        shares.setdefault(one.kind, []).append((part, float(masked[~around].mean())))
    rows = []
    for kind, values in shares.items():
        part, specimen = np.array(values).T
        found = int((part >= _MASKED).sum())
        rows.append(
            row(
                f"no specimen: {kind}",
                f"masked in {found} of {len(part)}; {specimen.mean():.2%} of the specimen masked",
                f"{_LEAST_PARTS:.0%} masked, at most {_MOST_SPECIMEN:.0%} of the specimen",
                met=found >= _LEAST_PARTS * len(part) and specimen.mean() <= _MOST_SPECIMEN,
            )
        )
    return rows
