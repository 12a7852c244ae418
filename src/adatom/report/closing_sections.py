"""The last sections of the page: the advice, and how the results were made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from adatom.core import Advice
from adatom.report.answer import ACTIONS
from adatom.report.markup import Html, duration, element, folded, number, section, table
from adatom.report.sections import not_done
from adatom.report.view import CampaignView
from adatom.report.viewer import LETTERS
from adatom.report.words import measured

# Terms of the page and their definitions.
_DEFINITIONS = {
    "Units": "Å, eV, fs or ps, K, electrons per Å². x runs right along columns, y down along "
    "rows; the origin is the centre of the first pixel. In supercells y points up.",
    "σ": "Standard deviation, per axis for positions. A 2σ disc holds 86 % of a Gaussian.",
    "p": "Probability that an atom exists, or that a defect is there and is of its kind.",
    "Ensemble": "Several networks, trained independently. Their mean is the prediction, their "
    "standard deviation the part of the uncertainty that more training data could remove.",
    "Draw": "One structure sampled from the positions' covariances and the elements' "
    "probabilities. The spread over relaxed draws is the uncertainty that the image leaves.",
    "Stretch": "Principal stretches minus one of the map from measured to undistorted positions.",
}
# Sources of the methods and of the colours.
_REFERENCES = {
    "Ensembles": "B. Lakshminarayanan, A. Pritzel and C. Blundell, NeurIPS 30 (2017).",
    "Ensembles on microscope frames": "A. Ghosh, B. G. Sumpter, O. Dyck, S. V. Kalinin and "
    "M. Ziatdinov, npj Comput. Mater. 7, 100 (2021).",
    "GFN1-xTB": "S. Grimme, C. Bannwarth and P. Shushkov, J. Chem. Theory Comput. 13, 1989 (2017).",
    "LAMMPS": "A. P. Thompson et al., Comput. Phys. Commun. 271, 108171 (2022).",
    "ASE": "A. Hjorth Larsen et al., J. Phys.: Condens. Matter 29, 273002 (2017).",
    "Thermal fluctuations": "M. P. Allen and D. J. Tildesley, Computer Simulation of Liquids, "
    "2nd ed. (2017).",
    "Colours": "M. Okabe and K. Ito, Color Universal Design (2008).",
}


def advice(view: CampaignView) -> Html:
    """The advice, best first."""
    title = "What to do next"
    if not view.advice:
        missing = not_done("There is no advice yet.", "adatom run FRAMES…")
        return section("advice", title, missing)
    shown = zip(LETTERS, view.advice, strict=False)
    cards = element("ol", *(_card(letter, a) for letter, a in shown), class_="cards")
    note = element(
        "p",
        "The letters stand on the frame above. Gains in nats (expected knowledge) and in "
        "probability (success of a manipulation) are different things and are not compared. ± is "
        "one standard deviation.",
        class_="note",
    )
    return section("advice", title, cards, note)


def _card(letter: str, action: Advice) -> Html:
    name = ACTIONS.get(action.action, action.action)
    unit = " nats" if action.gain_unit == "nats" else ""
    what = "gain" if action.gain_unit == "nats" else action.gain_unit
    facts = []
    if action.gain or action.uncertainty:
        facts.append((f"{measured(action.gain, action.uncertainty)}{unit}", what))
    if action.dose:
        facts.append((f"{_electrons(action.dose)} e⁻", "dose"))
    if action.target_xy_A is not None:
        x, y = action.target_xy_A
        facts.append((f"x {number(x)}, y {number(y)} Å", "beam at"))
    if action.dwell_s is not None:
        facts.append((f"{action.dwell_s:.2g} s", "dwell"))
    if action.voltage_kV is not None:
        facts.append((f"{action.voltage_kV:g} kV", "voltage"))
    if action.scan is not None:
        x, y = action.scan.center_xy_A
        facts.append((f"x {number(x, 1)}, y {number(y, 1)} Å", "centre"))
        facts.append((f"{number(action.scan.field_of_view_A, 1)} Å", "field of view"))
        dose = action.scan.dose_per_A2
        facts.append(
            (f"{dose:.3g} e⁻/Å²" if math.isfinite(dose) else "see the reason", "dose per area")
        )
    items = element("dl", *(element("div", element("dt", k), element("dd", v)) for v, k in facts))
    head = element("h3", element("span", letter, class_="letter"), name)
    return element("li", head, element("p", action.reason), items)


def _electrons(dose: float) -> str:
    if not dose < 1e5:
        mantissa, exponent = f"{dose:.1e}".split("e") if dose < float("inf") else ("–", "0")
        power = str(int(exponent)).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))
        return f"{mantissa} × 10{power}" if mantissa != "–" else "–"
    return number(dose, 0)


def made(view: CampaignView) -> Html:
    """Steps, configuration, versions, definitions, references."""
    parts: list[Html] = []
    if view.steps:
        rows = [(s.step, str(s.count), duration(s.seconds)) for s in view.steps]
        total = sum(s.seconds for s in view.steps)
        rows.append(("all", str(sum(s.count for s in view.steps)), duration(total)))
        parts.append(folded("Steps and their time", table(("Step", "Items", "Time"), rows)))
    if view.versions:
        rows_v = sorted(view.versions.items())
        parts.append(folded("Versions", table(("Program", "Version"), rows_v, words=2)))
    if view.configuration:
        flat = list(_flatten(view.configuration))
        parts.append(folded("Configuration", table(("Option", "Value"), flat, words=2)))
    terms = [element("div", element("dt", k), element("dd", v)) for k, v in _DEFINITIONS.items()]
    parts.append(folded("Units and definitions", element("dl", *terms, class_="terms")))
    books = (element("li", f"{k}: {v}") for k, v in _REFERENCES.items())
    parts.append(folded("References", element("ul", *books)))
    return section("made", "How it was made", *parts)


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "–" if value is None else str(value)
