"""The report: one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from adatom.errors import BadInput
from adatom.report import closing_sections, sections, simulation_sections
from adatom.report.answer import answer, lead
from adatom.report.film import film_script, film_section
from adatom.report.markup import Html, element, join
from adatom.report.stories import headline, stories
from adatom.report.view import CampaignView
from adatom.report.viewer import script_text
from adatom.store import write_text

# Anchor and link text of every section, in the order of the page.
_CONTENTS = (
    ("found", "Answer"),
    ("film", "Move"),
    ("defects", "Defects"),
    ("structures", "Structures"),
    ("dynamics", "Dynamics"),
    ("advice", "Next"),
    ("frames", "Frames"),
    ("made", "How"),
)


def page(view: CampaignView) -> str:
    """Make the whole page as a string.

    Its content security policy forbids loading anything and running any script but its own, so a
    malicious file name can do no harm.
    """
    told = stories(view)
    parts = (
        answer(view, told),
        film_section(view.film) if view.film else Html(""),
        sections.defects(view, told),
        simulation_sections.structures(view, told),
        simulation_sections.dynamics(view, told),
        closing_sections.advice(view),
        sections.frames(view),
        closing_sections.made(view),
    )
    made = "".join(parts)
    links = [
        element("a", name, href=f"#{anchor}")
        for anchor, name in _CONTENTS
        if f'id="{anchor}"' in made
    ]
    header = element(
        "header",
        element("nav", element("b", view.title), *links, aria_label="Contents"),
        element("h1", headline(view, told)),
        element("p", lead(view), class_="lead"),
    )
    version = view.versions.get("adatom")
    source = f"{view.source} · {view.material.name}"
    foot = element("footer", f"{source} · written by adatom{' ' + version if version else ''}.")
    body = element("body", header, element("main", *parts), foot, element("script", _script()))
    return document(view.title, body)


def document(title: str, body: Html) -> str:
    """Make a whole document of a body, which may hold the scripts of the page and no other."""
    return "<!DOCTYPE html>\n" + element("html", _head(title), body, lang="en")


def _script() -> Html:
    return Html(script_text() + film_script())


def move_page(title: str, told: str, film: Mapping[str, Any]) -> str:
    """Make the page of a move as a string.

    Parameters
    ----------
    title
        Headline.
    told
        What came of it, in a sentence.
    film
        As `adatom.report.film.film_data` gives it.
    """
    header = element("header", element("h1", title), element("p", told, class_="lead"))
    main = element("main", film_section(film))
    return document(title, element("body", header, main, element("script", _script())))


def write_report(view: CampaignView, path: str | Path) -> None:
    """Write the page to one file, completely or not at all.

    Parameters
    ----------
    view
        The campaign; every part may be empty.
    path
        File to write, such as ``report.html``; its folder must exist.

    Raises
    ------
    BadInput
        If the folder does not exist, or cannot be written.
    StepFailed
        If the disk is full; a page that was there stays.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise BadInput(
            f"report {target}",
            expected="a path in a folder that exists",
            got=f"no folder {target.parent}",
            todo="Make the folder first.",
        )
    write_text(target, page(view))


def _head(title: str) -> Html:
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    style = files("adatom.report").joinpath("page.css").read_text(encoding="utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} · adatom"),
        join([Html(f"<style>\n{style}</style>\n")]),
    )
