"""Warnings about frames: what is no specimen, unlike training, contradicted or distorted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from adatom.analysis.flags import Box, FrameFlags
from adatom.campaign.sources import SCALE_NOTE, scale_note
from adatom.core import Lattice, Material, Movie

# Strain of the lattice (dimensionless) above which the user is warned of a distorted scan, and
# error of the scale above which the user is told. Scan distortion is a few per cent.
_FAR_STRAIN, _FAR_SCALE = 0.10, 0.03


def frame_warnings(
    flags: Mapping[int, FrameFlags],
    lattices: Mapping[int, Lattice | None],
    movie: Movie,
    material: Material,
    *,
    told: Sequence[str] = (),
    wrong: str | None = None,
) -> tuple[str, ...]:
    """Write the warnings about the analysed frames of a movie.

    Parameters
    ----------
    flags, lattices
        Flags and lattice of each frame by its number.
    movie
        Calibrated frames.
    material
        What they show.
    told
        Notes of the opening: a scale that was told of there is not told of again.
    wrong
        Why the frames do not show the material: then only what is wrong with pixels is added.

    Returns
    -------
    One sentence for each kind of warning that applies.
    """
    pixels = pixel_warnings(flags)
    if wrong is not None:
        return pixels
    return (
        *pixels,
        *ood_warnings(flags),
        *image_warnings(flags),
        *lattice_warnings(lattices, movie, material, told),
    )


def pixel_warnings(flags: Mapping[int, FrameFlags]) -> tuple[str, ...]:
    """Write the warnings about pixels that do not show the specimen, or are clipped.

    Parameters
    ----------
    flags
        Flags of each frame by its number.

    Returns
    -------
    One sentence for each kind of warning that applies.
    """
    out = []
    masked = {i: f for i, f in flags.items() if f.masked}
    if masked:
        first, one = max(masked.items(), key=lambda item: item[1].masked_share)
        what = ", ".join(f"{kind} ({area:.3g} Å²)" for kind, area in one.masked)
        out.append(
            f"masked, because it is no specimen, in {len(masked)} of {len(flags)} frames: {what} "
            f"in frame {first}, {one.masked_share:.1%} of it; no atoms or defects are looked for "
            "there"
        )
    for end, name in ((1, "highest"), (0, "lowest")):
        clipped = {i: f for i, f in flags.items() if f.clipped_share[end] > 0}
        if clipped:
            first, one = max(clipped.items(), key=lambda item: item[1].clipped_share[end])
            told = (
                f"; the brightness of {one.limited_atoms} atoms there is fitted beyond it, and "
                "their elements are less sure"
                if end and one.limited_atoms
                else ""
            )
            out.append(
                f"saturated: pixels are clipped at the {name} value in {len(clipped)} of "
                f"{len(flags)} frames (frame {first}: {one.clipped_share[end]:.2%}){told}"
            )
    return tuple(out)


def ood_warnings(flags: Mapping[int, FrameFlags]) -> tuple[str, ...]:
    """Write the warnings about frames and regions that are out of distribution.

    Parameters
    ----------
    flags
        Flags of each frame by its number.

    Returns
    -------
    One sentence for each kind of warning that applies.
    """
    out = []
    unlike = [i for i, one in flags.items() if one.is_out_of_distribution]
    if unlike:
        out.append(
            f"{len(unlike)} of {len(flags)} frames (first {unlike[0]}) are unlike anything the "
            "networks were trained on: check the material and the scale, and trust their atoms "
            "little"
        )
    few = [i for i, one in flags.items() if one.has_few_confident_atoms]
    if few:
        out.append(
            f"hardly an atom is sure in {len(few)} of {len(flags)} frames (first {few[0]}), as in "
            "noise, dirt or another material: check what they show"
        )
    patched = {i: one.boxes for i, one in flags.items() if one.boxes and i not in unlike}
    if patched:
        first, boxes = next(iter(patched.items()))
        out.append(
            f"parts of {len(patched)} of {len(flags)} frames are unlike training (frame "
            f"{first}: {len(boxes)}, the first at {_place(boxes[0])}): look at what is there, and "
            "trust its atoms less"
        )
    return tuple(out)


def image_warnings(flags: Mapping[int, FrameFlags]) -> tuple[str, ...]:
    """Write the warnings about regions where the image and the columns disagree.

    Parameters
    ----------
    flags
        Flags of each frame by its number.

    Returns
    -------
    One sentence for each kind of disagreement that occurs.
    """
    told = (
        (
            "covered_regions",
            "contamination covers",
            "which atoms are on or under it is not known, and their probabilities are lowered",
        ),
        (
            "missed_regions",
            "the image shows columns that are not in the table, or not as likely ones, in",
            "look for what is missing there, and check the material",
        ),
        (
            "unsupported_regions",
            "the networks see columns that the image does not show in",
            "their probabilities are lowered; check the material and the scale",
        ),
    )
    out = []
    for name, what, advice in told:
        found = {i: getattr(f, name) for i, f in flags.items() if getattr(f, name)}
        if found:
            first, regions = next(iter(found.items()))
            worst = max(regions, key=lambda region: region[4])
            number = sum(region[4] for region in regions)
            many = f" with about {number:.0f} columns or more" if name == "missed_regions" else ""
            out.append(
                f"{what} parts of {len(found)} of {len(flags)} frames (frame {first}: "
                f"{len(regions)}{many}, the worst at {_place(worst[:4])}): {advice}"
            )
    return (*out, *_hollow_warnings(flags))


def _hollow_warnings(flags: Mapping[int, FrameFlags]) -> tuple[str, ...]:
    """Write the warning about hollows that are filled by columns that the fit hides."""
    found = {i: f.hollows for i, f in flags.items() if f.hollows is not None}
    if not found:
        return ()
    first, (bright, error, places) = max(found.items(), key=lambda item: item[1][2])
    text = (
        f"the hollows between the columns are not dark in {len(found)} of {len(flags)} frames "
        f"(frame {first}: {places} of them have {bright:.2f} ± {error:.2f} of a bright column's "
        "brightness on average): columns may stand there that are not in the table, as in another "
        "stacking"
    )
    return (text,)


def lattice_warnings(
    lattices: Mapping[int, Lattice | None],
    movie: Movie,
    material: Material,
    told: Sequence[str] = (),
) -> tuple[str, ...]:
    """Write the warnings about missing and distorted lattices, and about the scale.

    Parameters
    ----------
    lattices
        Lattice of each frame; None where none was found.
    movie, material, told
        As of `frame_warnings`.
    """
    if not material.has_lattice:
        return ()
    found = {i: lattice for i, lattice in lattices.items() if lattice is not None}
    missing = [i for i in lattices if i not in found]
    out = []
    if missing:
        out.append(f"no lattice in {len(missing)} of {len(lattices)} frames: first {missing[0]}")
    if not found or any(note.startswith(SCALE_NOTE) for note in told):
        return tuple(out)
    strained = [
        i for i, one in found.items() if max(abs(s) for s in one.affine.strain()) > _FAR_STRAIN
    ]
    scale = float(np.median([np.linalg.det(one.affine.array()) ** 0.5 for one in found.values()]))
    if abs(scale - 1.0) > _FAR_SCALE and movie.calibration is not None:
        px = movie.calibration.pixel_size_A
        out.append(scale_note(px, px * scale, material))
    elif strained:
        out.append(
            f"the scan is distorted by more than {_FAR_STRAIN:.0%} in {len(strained)} of "
            f"{len(lattices)} frames"
        )
    return tuple(out)


def _place(box: Box) -> str:
    left, top, right, bottom = box
    return f"x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f} Å"
