"""The report: one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from adatom.errors import BadInput
from adatom.report import closing_sections, sections, simulation_sections
from adatom.report.markup import Html, element, join
from adatom.report.view import CampaignView
from adatom.store.atomic import atomic_file

# Anchor and link text of every section, in the order of the page.
_CONTENTS = (
    ("found", "Found"),
    ("frames", "Frames"),
    ("defects", "Defects"),
    ("structures", "Structures"),
    ("energies", "Energies"),
    ("dynamics", "Dynamics"),
    ("advice", "Advice"),
    ("made", "How"),
)
# Buttons that show one frame at a time. Without scripts, and in print, all frames are shown.
_SCRIPT = """
const box = document.querySelector('.frames');
const all = box ? [...box.querySelectorAll('.frame')] : [];
if (all.length > 1) {
  const bar = document.createElement('div');
  bar.className = 'picker';
  bar.setAttribute('role', 'group');
  bar.setAttribute('aria-label', 'Frame to show');
  const show = (n) => all.forEach((frame, k) => {
    frame.classList.toggle('away', k !== n);
    bar.children[k].setAttribute('aria-pressed', String(k === n));
  });
  all.forEach((frame, k) => {
    const button = document.createElement('button');
    button.textContent = frame.dataset.name;
    button.addEventListener('click', () => show(k));
    bar.append(button);
  });
  box.prepend(bar);
  box.classList.add('picked');
  show(0);
}
"""


def page(view: CampaignView) -> str:
    """Make the whole page as a string.

    Its content security policy forbids loading anything and running any script but its own, so a
    malicious file name can do no harm.
    """
    parts = (
        sections.found(view),
        sections.frames(view),
        sections.defects(view),
        simulation_sections.structures(view),
        simulation_sections.energies(view),
        simulation_sections.dynamics(view),
        closing_sections.advice(view),
        closing_sections.made(view),
    )
    links = (element("a", name, href=f"#{anchor}") for anchor, name in _CONTENTS)
    header = element(
        "header",
        element("p", "adatom report", class_="kicker"),
        element("h1", view.title),
        element("p", f"{view.source} · {view.material.name}", class_="source"),
        element("nav", *links, aria_label="Contents"),
    )
    version = view.versions.get("adatom")
    foot = element("footer", f"Written by adatom{' ' + version if version else ''}.")
    body = element("body", header, element("main", *parts), foot, element("script", Html(_SCRIPT)))
    return "<!DOCTYPE html>\n" + element("html", _head(view), body, lang="en")


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
        If the folder does not exist.
    StepFailed
        If the disk is full.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise BadInput(
            f"report {target}",
            expected="a path in a folder that exists",
            got=f"no folder {target.parent}",
            todo="Make the folder first.",
        )
    text = page(view)
    with atomic_file(target) as file:
        file.write(text.encode())


def _head(view: CampaignView) -> Html:
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
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
        element("title", f"{view.title} · adatom"),
        join([Html(f"<style>\n{style}</style>\n")]),
    )
