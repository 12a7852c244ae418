"""The decisions of a move in words, for the terminal and the film."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


def in_words(line: Mapping[str, Any]) -> str:
    """Say a line of the record of a move.

    Parameters
    ----------
    line
        As `adatom.campaign.move.move_atoms` tells it.

    Examples
    --------
    >>> in_words({"action": "look", "field_of_view_A": 14.0, "why": "to confirm the goal"})
    'takes a frame of 14 Å to confirm the goal'
    """
    return _WORDS[line["action"]](line)


def _look(line: Mapping[str, Any]) -> str:
    return f"takes a frame of {line['field_of_view_A']:g} Å {line['why']}"


def _seen(line: Mapping[str, Any]) -> str:
    counts = Counter(line["elements"])
    atoms = ", ".join(f"{n} {name}" for name, n in counts.most_common())
    mine = [xy for xy, e in zip(line["xy_A"], line["elements"], strict=True)
            if e == line["element"]]  # fmt: skip
    places = " and ".join(f"({x:.1f}, {y:.1f}) Å" for x, y in mine[:3])
    found = f", {line['element']} at {places}" if mine else ""
    x, y = line["drift_xy_A"]
    moved = f"; the specimen has drifted by ({x:+.2f}, {y:+.2f}) Å" if x or y else ""
    return f"sees {atoms}{found}{moved}"


def _plan(line: Mapping[str, Any]) -> str:
    x, y = line["way_xy_A"][-1]
    if line["knock"]:
        return (
            f"plans to knock out the {line['element']} at ({x:.1f}, {y:.1f}) Å: about "
            f"{line['expected_s']:.2g} s by its cross section"
        )
    hops = "1 hop" if line["hops"] == 1 else f"{line['hops']} hops"
    return (
        f"plans {hops} of the {line['element']}, to ({x:.1f}, {y:.1f}) Å: about "
        f"{line['expected_s']:.0f} s by what is known of the rate"
    )


def _park(line: Mapping[str, Any]) -> str:
    return "parks" + str(line["what"]).removeprefix("park")


def _jump(line: Mapping[str, Any]) -> str:
    x, y = line["end_xy_A"]
    low, high = line["rate_ratio_90"]
    return (
        f"it jumped to ({x:.2f}, {y:.2f}) Å; rate {line['rate_ratio']:.2f} ({low:.2f} to "
        f"{high:.2f}) of the published one"
    )


def _knocked(line: Mapping[str, Any]) -> str:
    x, y = line["xy_A"]
    return f"the signal falls: the {line['element']} at ({x:.2f}, {y:.2f}) Å is gone"


def _lost(line: Mapping[str, Any]) -> str:
    places = ", ".join(f"({x:.1f}, {y:.1f}) Å" for x, y in line["xy_A"])
    return f"sees no atom any more at {places}: keeps away from there"


def _fault(line: Mapping[str, Any]) -> str:
    return f"{line['kind']}: {line['what']}"


def _limit(line: Mapping[str, Any]) -> str:
    return f"takes no more frames: {line['reason']}"


def _note(line: Mapping[str, Any]) -> str:
    return f"the instrument {line['what']}"


def _end(line: Mapping[str, Any]) -> str:
    return f"{line['status']}: {line['reason']}"


_WORDS = {
    "look": _look, "seen": _seen, "plan": _plan, "park": _park, "jump": _jump,
    "knocked": _knocked, "lost": _lost,
    "fault": _fault, "limit": _limit, "note": _note, "end": _end,
}  # fmt: skip
