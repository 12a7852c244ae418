"""Read the pixel size of a file in any unit, and convert it to Å; used by all formats."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adatom.errors import BadInput

# Smallest and largest pixel size at atomic resolution, Å: a probe of 0.5-1 Å is sampled a few
# times, and a pixel of 2 Å holds a whole atom.
MIN_A, MAX_A = 0.005, 2.0
# Usual pixel sizes, Å, to guess a missing unit. The range spans less than a factor of 100, so that
# two units rarely fit.
TYPICAL_A = (0.015, 0.6)

# Length of each unit, Å.
UNIT_A = {"m": 1e10, "mm": 1e7, "µm": 1e4, "nm": 10.0, "Å": 1.0, "pm": 0.01}
# Spellings of each unit in files, lower case.
_WORDS = {
    "m": ("m", "meter", "metre"),
    "mm": ("mm", "millimeter", "millimetre"),
    "µm": ("um", "μm", "micron", "micrometer", "micrometre", "\\u00b5m"),
    "nm": ("nm", "nanometer", "nanometre"),
    "Å": ("å", "a", "ang", "angstrom", "ångström", "ångstrom", "\\u00c5"),
    "pm": ("pm", "picometer", "picometre"),
}
_UNITS = {word + s: unit for unit, words in _WORDS.items() for word in words for s in ("", "s")}
# Texts that files write where they have no unit.
_NO_UNIT = frozenset({"", "none", "px", "pixel", "pixels", "<undefined>", "undefined", "t.undef"})


@dataclass(frozen=True, slots=True)
class Scale:
    """Pixel size from one source.

    Parameters
    ----------
    pixel_A
        Edge of a pixel, Å; None if the source has none. Where `ratio` is not 1, the longer edge.
    notes
        Assumptions, for the user.
    ratio
        Height of a pixel over its width; 1 for square pixels.
    """

    pixel_A: float | None = None
    notes: tuple[str, ...] = ()
    ratio: float = 1.0

    def with_notes(self, *notes: str) -> Scale:
        """Give the same scale with more notes before its own."""
        return replace(self, notes=(*notes, *self.notes))


def normal_unit(unit: object) -> str:
    """Normalise a unit of length to a key of `UNIT_A`; other units are returned in lower case.

    Examples
    --------
    >>> normal_unit("n_m"), normal_unit(b"Angstroms"), normal_unit("1 / nm"), normal_unit(None)
    ('nm', 'Å', '1/nm', '')
    """
    text = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else str(unit or "")
    text = unicodedata.normalize("NFKC", text).strip().casefold()
    text = text.replace("_", "").replace(" ", "")
    return "" if text in _NO_UNIT else _UNITS.get(text, text)


def is_reciprocal(unit: str) -> bool:
    """Whether a normalised unit belongs to a diffraction pattern (1/length or an angle)."""
    text = unit.replace("\u2212", "-")  # the minus of a superscript -1
    return "1/" in text or text.endswith(("^-1", "-1", "^(-1)")) or text in {"mrad", "rad", "deg"}


def from_axes(scales: Sequence[object], units: Sequence[object], subject: str) -> Scale:
    """Pixel size from the (row, column) axes of an image.

    Parameters
    ----------
    scales
        Size of a pixel along rows' and columns' axes, in `units`.
    units
        Their units, as the file spells them.
    subject
        File, for messages.

    Raises
    ------
    BadInput
        If the axes are reciprocal (a diffraction pattern).

    Notes
    -----
    Pixels that are square to 1 % count as square; others have a `Scale.ratio`.
    """
    names = [normal_unit(u) for u in units]
    names = [name or other for name, other in zip(names, reversed(names), strict=True)]
    strange = next((n for n in names if is_reciprocal(n)), None)
    if strange is not None:
        raise BadInput(
            subject,
            expected="an image in real space",
            got=f"axes in {strange}: a diffraction pattern",
            todo="Give the image itself, not its transform.",
        )
    sizes = [_number(s) for s in scales]
    if any(s is None or s <= 0 for s in sizes):
        return Scale()
    rows, columns = (float(s) for s in sizes if s is not None)
    unknown = next((n for n in names if n and n not in UNIT_A), None)
    if unknown is not None:
        return Scale(None, (f"the file's axis unit '{unknown}' is no length: no scale taken",))
    if not any(names):
        # Programs write 1 without a unit if they do not know the scale.
        known = rows != 1 and columns != 1
        edge, ratio = _edge(rows, columns)
        return replace(guess_unit(edge), ratio=ratio) if known else Scale()
    edge, ratio = _edge(rows * UNIT_A[names[0]], columns * UNIT_A[names[1]])
    return Scale(edge, ratio=ratio)


def guess_unit(value: float) -> Scale:
    """Pixel size from a number without a unit, if exactly one unit gives a usual pixel size.

    Parameters
    ----------
    value
        Pixel size as the file has it.
    """
    plausible = [
        unit for unit, size in UNIT_A.items() if TYPICAL_A[0] <= value * size <= TYPICAL_A[1]
    ]
    if len(plausible) != 1:
        either = f": it could be in {' or '.join(plausible)}" if plausible else ""
        return Scale(None, (f"the file's pixel size {value:.5g} has no unit{either}; not taken",))
    size = value * UNIT_A[plausible[0]]
    note = f"the file's pixel size {value:.5g} has no unit: taken as {plausible[0]} ({size:.4g} Å)"
    return Scale(size, (note,))


def from_field_of_view(
    value: object, unit: object, shape: tuple[int, int], axis: str = ""
) -> Scale:
    """Pixel size from the field of view (`scan size`) along one edge of the frame.

    Published files have it without a unit, some in pm (2000 for 2 nm), some in nm (4.0). The unit
    that gives 0.005-1 Å per pixel is used, with a note.

    Parameters
    ----------
    value
        Field of view: a number, or text such as ``4.0`` or ``4 nm``; other values give no scale.
    unit
        Its unit; empty if the file has none.
    shape
        Rows and columns of the frame.
    axis
        ``x`` if it is that of a row of pixels, ``y`` for a column; empty for the longer edge.
    """
    text, name = str(_text(value)).strip(), normal_unit(unit)
    if not name and " " in text:
        text, _, rest = text.partition(" ")
        name = normal_unit(rest)
    number = _number(text)
    if number is None or number <= 0:
        return Scale()
    per_pixel = number / {"x": shape[1], "y": shape[0]}.get(axis, max(shape))
    if name:
        return Scale(per_pixel * UNIT_A[name]) if name in UNIT_A else Scale()
    for guess in ("pm", "nm"):
        size = per_pixel * UNIT_A[guess]
        if MIN_A <= size <= 1.0:
            note = f"the file's field of view {number:g} has no unit: taken as {guess}"
            return Scale(size, (f"{note} ({size:.4g} Å a pixel)",))
    return Scale(None, (f"the file's field of view {number:g} fits neither pm nor nm; not taken",))


def from_metadata(tree: object, shape: tuple[int, int], subject: str) -> Scale:
    """Pixel size from a nested dictionary: JSON beside or inside a file, or its attributes.

    Understands ``pixel_size_A`` and ``sampling`` (Å), ``scan size`` (see `from_field_of_view`),
    ``field_of_view_x`` and ``field_of_view_y`` with ``field_of_view_units``, and Nion Swift's
    ``spatial_calibrations`` or ``dimensional_calibrations``.
    """
    notes: tuple[str, ...] = ()
    for level in _dictionaries_in(tree):
        found = _from_level({str(k).lower(): v for k, v in level.items()}, shape, subject)
        if found.pixel_A is not None:
            return found
        notes += found.notes
    return Scale(None, notes)


def _from_level(level: Mapping[str, Any], shape: tuple[int, int], subject: str) -> Scale:
    for key in ("pixel_size_a", "sampling"):
        size = _number(level.get(key))
        if size is not None and size > 0:
            return Scale(size)
    for stem in ("scan size", "scan_size", "field_of_view", "fov"):
        unit = next((level[u] for u in (f"{stem}_units", f"{stem}_unit") if u in level), "")
        along = {
            axis: from_field_of_view(level[key], unit, shape, axis)
            for axis in "xy"
            if (key := f"{stem}_{axis}") in level
        }
        if along:
            return _from_edges(along)
        if stem in level:
            return from_field_of_view(level[stem], unit, shape)
    for key in ("spatial_calibrations", "dimensional_calibrations"):
        axes = level.get(key)
        if isinstance(axes, list) and len(axes) >= 2 and all(isinstance(a, dict) for a in axes):
            image = axes[-2:]
            return from_axes(
                [a.get("scale") for a in image], [a.get("units") for a in image], subject
            )
    return Scale()


def _from_edges(along: Mapping[str, Scale]) -> Scale:
    """Scale from the fields of view along x, y or both; one alone means square pixels."""
    known = {axis: found for axis, found in along.items() if found.pixel_A is not None}
    if len(known) < 2:
        return next(iter([*known.values(), *along.values()]))
    rows, columns = known["y"].pixel_A or 0.0, known["x"].pixel_A or 0.0
    edge, ratio = _edge(rows, columns)
    return Scale(edge, known["x"].notes, ratio)


def check_range(pixel_A: float, subject: str, *, given: bool) -> None:
    """Refuse a pixel size that is not atomic resolution, and suggest the unit that would be.

    Parameters
    ----------
    pixel_A
        Edge of a pixel, Å.
    subject
        File or option, for the message.
    given
        Whether the user gave it; False if it is from the file.

    Raises
    ------
    BadInput
        If it lies outside 0.005-2 Å.
    """
    if MIN_A <= pixel_A <= MAX_A:
        return
    if given:
        factors = {10.0: "in nm", 0.01: "in pm", 1e4: "in µm", 1e10: "in m"}
    else:
        factors = {
            1e-3: "in pm where the file says nm",
            1e3: "in nm where the file says pm",
            0.1: "in Å where the file says nm",
            10.0: "in nm where the file says Å",
        }
    right = [f for f in factors if MIN_A <= pixel_A * f <= MAX_A]
    # If two unit errors are possible, suggest the one nearest to the usual 0.1 Å.
    likely = min(right, key=lambda f: abs(math.log(pixel_A * f / 0.1)), default=None)
    hint = (
        f"If the number is {factors[likely]}, it is {pixel_A * likely:.4g} Å: "
        f"give `pixel_size_A` {pixel_A * likely:.4g}."
        if likely is not None
        else "Give the right one as `pixel_size_A`, in Å."
    )
    raise BadInput(
        subject,
        expected=f"a pixel size of {MIN_A:g} to {MAX_A:g} Å (atomic resolution)",
        got=f"{pixel_A:.5g} Å",
        todo=hint,
    )


def _edge(rows: float, columns: float) -> tuple[float, float]:
    """Edge of the pixels, and height over width: 1 if they are square to 1 %."""
    ratio = rows / columns
    if abs(ratio - 1) <= 0.01:
        return math.sqrt(rows * columns), 1.0
    return max(rows, columns), ratio


def _number(value: object) -> float | None:
    """Give a finite number, or None for anything else (``NA``, an array, nothing)."""
    try:
        number = float(_text(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _text(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _dictionaries_in(tree: object) -> Iterator[Mapping[Any, Any]]:
    """Yield every dictionary in a nested structure, the outermost first."""
    queue: list[object] = [tree]
    while queue:
        node = queue.pop(0)
        if isinstance(node, Mapping):
            yield node
            queue.extend(node.values())
        elif isinstance(node, list):
            queue.extend(node)
