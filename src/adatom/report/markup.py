"""HTML that is balanced and escaped by construction: plain text can't become markup."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from adatom.report.facts import printable
from adatom.report.style import svg_uri

_VOID = frozenset({"img", "meta", "br", "col", "input"})
_THIN = "\u202f"


class Html(str):
    """Text that is markup already; every other string is escaped when it is put into an element."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: str | None) -> Html:
    """Make an element.

    Parameters
    ----------
    name
        Tag.
    children
        `Html` is taken as it is, any other string is escaped.
    attributes
        Escaped; a trailing underscore falls off (``class_``), None leaves the attribute out.
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{pairs}>")
    return Html(f"<{name}{pairs}>{join(children)}</{name}>\n")


def join(children: Iterable[str]) -> Html:
    """Put pieces one after the other, escaping those that are plain text."""
    return Html("".join(c if isinstance(c, Html) else html.escape(printable(c)) for c in children))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> Html:
    """Make a table whose first `words` columns are text and the others numbers, aligned right."""
    kinds = ["w" if n < words else "n" for n in range(len(head))]
    # A word joiner keeps a unit such as eV/Å on one line.
    head = [h.replace("/Å", "/\u2060Å") for h in head]
    top = join(element("th", h, class_=k) for h, k in zip(head, kinds, strict=True))
    body = join(
        element("tr", *(element("td", c, class_=k) for c, k in zip(row, kinds, strict=True)))
        for row in rows
    )
    inner = element("table", element("thead", element("tr", top)), element("tbody", body))
    return element("div", inner, class_="scroll", tabindex="0")


def picture(
    figure: Figure, alt: str, caption: str, *, wide: bool = False, pixels: bool = False
) -> Html:
    """Put a figure into the page with what a reader who can't see it is told, and its caption.

    `wide` for the whole width, `pixels` to show an image's pixels as squares.
    """
    image = element("img", src=svg_uri(figure, pixels=pixels), alt=alt)
    return element("figure", image, element("figcaption", caption), class_="wide" if wide else None)


def number(value: float, digits: int = 2) -> str:
    """Fixed-point number, with an en dash for what is not known and thin spaces in thousands."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.{digits}f}".replace(",", _THIN)
    return text.replace("-", "−")


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Count of things: ``1 frame``, ``44 frames``."""
    return f"{number(n, 0)} {noun if n == 1 else plural or noun + 's'}"


def listing(items: Sequence[str]) -> str:
    """Join words with commas and an *and*."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def duration(seconds: float) -> str:
    """Seconds as a reader says them."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
