"""How frames were recorded, by the metadata of their file: voltage, angles, times, current."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from adatom.core.acquisition import UNKNOWN, Acquisition
from adatom.frames.readers.axes import Axis, Layout
from adatom.frames.readers.pixel_size import normal_unit

# Factors to the units of `Acquisition`.
_KV = {"v": 1e-3, "kv": 1.0, "kev": 1.0, "ev": 1e-3}
_SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "millisecond": 1e-3,
    "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "microsecond": 1e-6, "ns": 1e-9, "min": 60.0,
    "minute": 60.0,
}  # fmt: skip
_PICOAMPERES = {"pa": 1.0, "na": 1e3, "a": 1e12}
# Voltages of electron microscopes, kV. A number without a unit beyond them is in volts.
_LEAST_KV, _MOST_KV = 1.0, 3000.0
_MOST_RAD = 1.0  # angles of detectors are smaller
# Keys of metadata that is JSON or attributes (Nion Swift, pyNSID, published files), without case,
# spaces and signs: what they mean, and the unit of a number that comes without one.
_KEYS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        (
            "accelerationvoltage", "acceleratingvoltage", "accvoltage", "beamenergy", "hightension",
            "hightensionv", "eht", "voltage", "voltagekv",
        ),
        ("voltage_kV", ""),
    ),
    **dict.fromkeys(("pixeltimeus", "dwelltimeus"), ("dwell_s", "us")),
    **dict.fromkeys(("pixeltime", "pixeltimes", "dwelltime", "dwelltimes"), ("dwell_s", "s")),
    **dict.fromkeys(
        ("exposure", "exposures", "exposuretime", "frametime", "frametimes", "frameinterval"),
        ("frame_time_s", "s"),
    ),
    **dict.fromkeys(("probecurrent", "beamcurrent"), ("current_pA", "")),
    **dict.fromkeys(("probecurrentpa", "beamcurrentpa"), ("current_pA", "pa")),
}  # fmt: skip
_ANGLES = ("detectormrad", "collectionanglesmrad")
_DEEPEST = 8  # levels of metadata that are searched
_TEM = "Acquisition_instrument"


def recorded_in_vendor_file(image: Mapping[str, Any]) -> Acquisition:
    """Read what rosettasciio gives for an image: HyperSpy's metadata and the vendor's own tags.

    Parameters
    ----------
    image
        One image as a reader of rosettasciio returns it. Tags that only HyperSpy would move to
        their place are moved by the image's ``mapping``.
    """
    tags = image.get("original_metadata")
    tags = tags if isinstance(tags, Mapping) else {}
    metadata = image.get("metadata")
    common = recorded_by_hyperspy(metadata if isinstance(metadata, Mapping) else {})
    return (
        common.or_else(_mapped(image.get("mapping"), tags))
        .or_else(_digital_micrograph(tags))
        .or_else(_velox(tags))
        .or_else(_ncem(tags))
    )


def recorded_by_hyperspy(metadata: Mapping[str, Any]) -> Acquisition:
    """Read HyperSpy's metadata: ``Acquisition_instrument.TEM`` with energy in kV, current in nA.

    Parameters
    ----------
    metadata
        Nested dictionary.

    Examples
    --------
    >>> recorded_by_hyperspy({"Acquisition_instrument": {"TEM": {"beam_energy": 80.0}}}).voltage_kV
    80.0
    """
    out = UNKNOWN
    for name in ("TEM", "STEM", "SEM"):
        own = _inside(metadata, _TEM, name)
        if isinstance(own, Mapping):
            out = out.or_else(
                Acquisition(
                    voltage_kV=_voltage(own.get("beam_energy"), "kv"),
                    dwell_s=_positive(own.get("dwell_time"), "s", _SECONDS),
                    frame_time_s=_positive(own.get("frame_time"), "s", _SECONDS),
                    current_pA=_positive(own.get("beam_current"), "na", _PICOAMPERES),
                )
            )
    return out


def recorded_in_tree(tree: object) -> Acquisition:
    """Read a nested dictionary: JSON beside or inside a file, or attributes of a data set.

    Parameters
    ----------
    tree
        Of Nion Swift, pyNSID, or a published file; numbers may be text with a unit.

    Examples
    --------
    >>> nion = {"metadata": {"instrument": {"high_tension": 6e4},
    ...                      "hardware_source": {"exposure": 4.5, "pixel_time_us": 16.0}}}
    >>> found = recorded_in_tree(nion)
    >>> found.voltage_kV, found.frame_time_s, found.dwell_s
    (60.0, 4.5, 1.6e-05)
    >>> recorded_in_tree({"voltage": "60 kV", "probe_current": "30 pA"}).current_pA
    30.0
    """
    found: dict[str, Any] = {}
    for key, value in _leaves(tree):
        plain = re.sub(r"[^a-z0-9]", "", key.lower())
        if plain in _ANGLES and isinstance(value, (list, tuple)) and len(value) == 2:
            found.setdefault("detector_mrad", _angles(*value, per_mrad=1.0))
        name, unit = _KEYS.get(plain, ("", ""))
        if name == "voltage_kV":
            found.setdefault(name, _voltage(value, unit))
        elif name == "current_pA":
            found.setdefault(name, _positive(value, unit, _PICOAMPERES))
        elif name:
            found.setdefault(name, _positive(value, unit, _SECONDS))
        found = {k: v for k, v in found.items() if v is not None}
    return Acquisition(**found)


def recorded_in_ome(xml: str) -> Acquisition:
    """Read the time from frame to frame of OME's XML; it knows no electron beam."""
    step = re.search(r'\bTimeIncrement="([^"]+)"', xml)
    unit = re.search(r'\bTimeIncrementUnit="([^"]+)"', xml)
    seconds = _positive(step and step[1], unit[1] if unit else "s", _SECONDS)
    return Acquisition(frame_time_s=seconds)


def recorded_by_axis(axes: tuple[Axis, ...], layout: Layout) -> Acquisition:
    """Read the time from frame to frame from the step of the axis of frames."""
    if layout.frame is None:
        return UNKNOWN
    axis = axes[layout.frame]
    return Acquisition(frame_time_s=_positive(axis.scale, normal_unit(axis.unit), _SECONDS))


def _mapped(mapping: object, tags: Mapping[str, Any]) -> Acquisition:
    """Apply rosettasciio's mapping from tags to HyperSpy's metadata, as HyperSpy does."""
    if not isinstance(mapping, Mapping):
        return UNKNOWN
    moved: dict[str, Any] = {}
    for source, (target, convert) in mapping.items():
        path = str(target).split(".")
        value = _inside(tags, *str(source).split("."))
        if path[0] != _TEM or len(path) != 3 or not isinstance(value, (str, int, float)):
            continue
        try:
            moved.setdefault(path[1], {})[path[2]] = value if convert is None else convert(value)
        except Exception:  # noqa: BLE001, S112 (a tag that its reader cannot convert is not known)
            continue
    return recorded_by_hyperspy({_TEM: moved})


def _digital_micrograph(tags: Mapping[str, Any]) -> Acquisition:
    """DigiScan's time on a pixel, µs, and detectors of plug-ins are not among HyperSpy's keys."""
    images = _inside(tags, "ImageList")
    found = [
        _inside(image, "ImageTags", "DigiScan", "Sample Time")
        for image in (images.values() if isinstance(images, Mapping) else ())
    ]
    known = [v for v in found if v is not None]
    return Acquisition(dwell_s=_positive(known[0], "us", _SECONDS) if known else None)


def _velox(tags: Mapping[str, Any]) -> Acquisition:
    """Velox: SI units, and the angles of the detector that took the image."""
    if not isinstance(_inside(tags, "Scan"), Mapping) or "Optics" not in tags:
        return UNKNOWN
    dwell = _positive(_inside(tags, "Scan", "DwellTime"), "s", _SECONDS)
    passes = _number(_inside(tags, "Scan", "LineIntegrationCount")) or 1.0
    return Acquisition(
        voltage_kV=_voltage(_inside(tags, "Optics", "AccelerationVoltage"), "v"),
        detector_mrad=_velox_angles(tags),
        frame_time_s=_positive(_inside(tags, "Scan", "FrameTime"), "s", _SECONDS),
        dwell_s=None if dwell is None else dwell * passes,
        current_pA=_positive(
            _inside(tags, "Optics", "LastMeasuredScreenCurrent"), "a", _PICOAMPERES
        ),
    )


def _velox_angles(tags: Mapping[str, Any]) -> tuple[float, float] | None:
    used = _inside(tags, "BinaryResult", "Detector")
    detectors = _inside(tags, "Detectors")
    for detector in detectors.values() if isinstance(detectors, Mapping) else ():
        if isinstance(detector, Mapping) and detector.get("DetectorName") == used is not None:
            inner = _inside(detector, "CollectionAngleRange", "begin")
            outer = _inside(detector, "CollectionAngleRange", "end")
            return _angles(inner, outer, per_mrad=1e3)
    return None


def _ncem(tags: Mapping[str, Any]) -> Acquisition:
    """NCEM's EMD files have a group ``microscope`` with numbers in SI units."""
    own = _inside(tags, "microscope")
    found = recorded_in_tree(own) if isinstance(own, Mapping) else UNKNOWN
    return replace(found, frame_time_s=None)  # its exposure is that of a camera


def _inside(tree: object, *keys: str) -> Any:
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _leaves(tree: object, depth: int = 0) -> Iterator[tuple[str, object]]:
    """Keys and values of a tree, those near its root first."""
    if not isinstance(tree, Mapping) or depth > _DEEPEST:
        return
    yield from ((str(key), value) for key, value in tree.items() if not isinstance(value, Mapping))
    for value in tree.values():
        yield from _leaves(value, depth + 1)


def _voltage(value: object, unit: str) -> float | None:
    """Voltage in kV; a number without a unit is in V if it is too large for kV."""
    number, own = _with_unit(value)
    if number is None:
        return None
    guess = 1.0 if number < _MOST_KV else 1e-3
    kV = number * (_KV.get(own, 0.0) if own else _KV.get(unit, guess))
    return kV if _LEAST_KV <= kV <= _MOST_KV else None


def _angles(inner: object, outer: object, *, per_mrad: float) -> tuple[float, float] | None:
    """Angles of an annular detector, mrad; None for a disc, or one whose angles are not known."""
    low, high = _number(inner), _number(outer)
    if low is None or high is None or not 0.0 < low < high <= _MOST_RAD * 1e3 / per_mrad:
        return None
    return low * per_mrad, high * per_mrad


def _positive(value: object, unit: str, factors: Mapping[str, float]) -> float | None:
    """A number above zero in the unit of `Acquisition`; None if its unit is not known."""
    number, own = _with_unit(value)
    factor = factors.get(own or unit)
    if number is None or factor is None or not number > 0:
        return None
    return number * factor


def _with_unit(value: object) -> tuple[float | None, str]:
    """Number and unit of a number, or of text such as ``60 kV``."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*([a-zA-Zµμ]*)\s*", value)
        return (_number(match[1]), match[2].lower()) if match else (None, "")
    return _number(value), ""


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None
