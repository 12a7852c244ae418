"""The first screen: the frame with its defects, their stories, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from adatom.core import Advice
from adatom.report.facts import UNCERTAIN_P, median_sigma
from adatom.report.markup import Html, count, element, join, listing, number, with_code
from adatom.report.stories import Story, certainty, deeds, place_of, verdicts
from adatom.report.summary import all_warnings
from adatom.report.view import CampaignView
from adatom.report.viewer import LETTERS, RankedDefect, kind_colours, viewer
from adatom.report.words import capital, how_sure

_CARDS = 5  # defects told one by one on the first screen, a count; the rest are in the table
_LINKS = 40  # links to the defects of one kind, a count
_NEXT = 2  # actions on the first screen, a count
# The frames may be of something else, or their atoms not to be trusted.
_NONE = "No advice: what is found does not bear it. The warnings say why."
_NOT_YET = "No advice yet."
# What every action asks for.
ACTIONS = {
    "scan": "Scan a region",
    "place_beam": "Place the beam",
    "set_voltage": "Set the voltage",
    "stop": "Stop here",
}


def answer(view: CampaignView, told: Sequence[Story]) -> Html:
    """Make the first screen.

    Parameters
    ----------
    view
        The campaign.
    told
        Stories of its defects.
    """
    ranked = [RankedDefect(s.rank, s.track, s.words) for s in told if s.track is not None]
    texts = element("div", _cards(view, told, ranked), _next(view), class_="told")
    screen = element("div", viewer(view, ranked), texts, class_="screen")
    return element("section", _warnings(view), screen, id="found")


def lead(view: CampaignView) -> str:
    """Say in one sentence how many atoms were found, and how well they are placed."""
    frames = f"{count(view.frame_count, 'frame')} of {view.material.name}"
    if len(view.atoms) == 0:
        return f"{frames}; no atoms have been found yet."
    names, counts = np.unique(view.atoms.elements, return_counts=True)
    each = [f"{number(n, 0)} {e}" for n, e in sorted(zip(counts, names, strict=True), reverse=True)]
    unsure = 100 * float(np.mean(view.atoms.column("p_exists") < UNCERTAIN_P))
    doubt = f"; {unsure:.0f} % of them have p < {UNCERTAIN_P}" if unsure >= 0.5 else ""
    return (
        f"{frames}: {listing(each)} atoms, placed with a median σ of "
        f"{median_sigma(view.atoms):.3f} Å per axis{doubt}."
    )


def _warnings(view: CampaignView) -> Html:
    texts = [with_code(text) for text in all_warnings(view)]
    note = element("p", view.unfinished, class_="unfinished") if view.unfinished else Html("")
    if not texts:
        return note
    head = element("summary", element("b", count(len(texts), "warning")), " ", texts[0])
    if len(texts) == 1:
        return join(
            [
                note,
                element(
                    "div", element("b", "Warning"), " ", texts[0], class_="warnings", role="note"
                ),
            ]
        )
    items = element("ul", *(element("li", t) for t in texts[1:]))
    return join([note, element("details", head, items, class_="warnings", role="note")])


def _cards(view: CampaignView, told: Sequence[Story], ranked: Sequence[RankedDefect]) -> Html:
    if not told:
        none = "There are no atoms to look for defects in."
        if len(view.atoms):
            none = f"No defect was named in {count(view.frame_count, 'frame')}."
        return element("p", none, class_="missing")
    colours = kind_colours(ranked)
    if len(told) > _CARDS and len({s.words for s in told}) < len(told):
        return _groups(view, told, colours)
    cards = [_card(view, s, colours) for s in told[:_CARDS]]
    rest = told[_CARDS:]
    if rest:
        kinds = Counter(s.words for s in rest).most_common(4)
        names = listing([w if n == 1 else f"{n} × {w}" for w, n in kinds])
        link = element("a", f"{len(rest)} more", href="#defects")
        cards.append(element("li", element("p", link, f": {names}."), class_="more"))
    return element("ol", *cards, class_="stories")


def _groups(view: CampaignView, told: Sequence[Story], colours: dict[str, str]) -> Html:
    """Tell many defects by their kind, each with a link to every one of them."""
    groups: dict[str, list[Story]] = {}
    for story in told:
        groups.setdefault(story.words, []).append(story)
    several = sorted(groups.items(), key=lambda item: -len(item[1]))
    cards = [
        _card(view, group[0], colours) if len(group) == 1 else _group(group, colours)
        for _, group in several[:_CARDS]
    ]
    if len(several) > _CARDS:
        link = element("a", count(len(several) - _CARDS, "more kind"), href="#defects")
        cards.append(element("li", element("p", link, "."), class_="more"))
    return element("ol", *cards, class_="stories")


def _group(group: Sequence[Story], colours: dict[str, str]) -> Html:
    tracked = [(s, s.track) for s in group if s.track is not None]
    p = sorted((float(np.nanmean(t.p)) for _, t in tracked), reverse=True)
    words = Counter(how_sure(value).split(" (")[0] for value in p)  # the surest first
    rows = [("Sure", capital(listing([f"{n} {word}" for word, n in words.items()])))]
    moved = [s.motion for s in group if s.motion is not None and s.motion.steps]
    if moved:
        hops, steps = sum(m.hops for m in moved), sum(m.steps for m in moved)
        rows.append(("Did", f"{count(hops, 'hop')} in {count(steps, 'step')} of {len(moved)}"))
    for story in group:
        rows += [
            (label, f"{capital(text)} (number {story.rank})") for label, text in verdicts(story)
        ]
    places = [
        element("a", str(s.rank), href="#found", data_go=place_of(t)) for s, t in tracked[:_LINKS]
    ]
    more = f" and {len(tracked) - _LINKS} more" if len(tracked) > _LINKS else ""
    facts = [join([element("dt", k), element("dd", v)]) for k, v in rows]
    facts.append(join([element("dt", "Where"), element("dd", *_spaced(places), more)]))
    kind = tracked[0][1].main_kind
    badge = element("span", class_="dot", style=f"background:{colours[kind]}")
    name = element("span", f"{len(group)} × {group[0].words}")
    head = element("h3", badge, name, element("small", kind))
    return element("li", head, element("dl", *facts))


def _spaced(parts: Sequence[Html]) -> list[Html]:
    return [Html(f"{part} ") for part in parts]


def _card(view: CampaignView, story: Story, colours: dict[str, str]) -> Html:
    track = story.track
    rows: list[tuple[str, str]] = []
    if track is not None:
        rows.append(("Sure", capital(certainty(view, track))))
        did = deeds(view, story)
        if did:
            rows.append(("Did", capital(did)))
    rows += [(label, capital(text)) for label, text in verdicts(story)]
    if story.simulated is None and story.rank == 1 and view.material.simulated_by:
        rows.append(("Simulated", "Not yet"))
    facts = element("dl", *(join([element("dt", k), element("dd", v)]) for k, v in rows))
    if track is None:
        return element("li", element("h3", capital(story.words)), facts)
    place = place_of(track)
    badge = element("span", str(story.rank), class_="rank",
                    style=f"background:{colours[track.main_kind]}")  # fmt: skip
    name = element("a", capital(story.words), href="#found", data_go=place)
    head = element("h3", badge, name, element("small", track.main_kind))
    return element("li", head, facts, class_="doubtful" if story.is_doubtful else None)


def _next(view: CampaignView) -> Html:
    head = element("h2", "What to do next")
    if view.advice:
        last = view.frame_count - 1
        items = [_action(n, a, last) for n, a in zip(LETTERS, view.advice[:_NEXT], strict=False)]
        parts = [head, element("ul", *items)]
        more = len(view.advice) - len(items)
        if more > 0:
            link = element("a", f"{more} more, and the dose of each", href="#advice")
            parts.append(element("p", link))
        return element("div", *parts, class_="next")
    return element(
        "div",
        head,
        element("p", _NONE if all_warnings(view) and not view.unfinished else _NOT_YET),
        class_="next",
    )


def _action(letter: str, action: Advice, last: int) -> Html:
    name = ACTIONS.get(action.action, action.action)
    place = action.target_xy_A or (action.scan.center_xy_A if action.scan else None)
    if place is not None:
        name = element("a", name, href="#found", data_go=f"{last} {place[0]:.2f} {place[1]:.2f}")
    title = element("b", element("i", letter), name)
    return element("li", title, f" {action.reason}")
