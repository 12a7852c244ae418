"""HTML elements with escaped content: plain text cannot become markup."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Sequence

from adatom.report.facts import printable

_VOID = frozenset({"img", "meta", "br", "col", "input"})  # elements without an end tag
_THIN = "\u202f"  # narrow no-break space between thousands


class Html(str):
    """Text that is already markup; `element` and `join` escape every other string."""

    __slots__ = ()


def element(name: str, *children: str, **attributes: str | None) -> Html:
    """Make an element.

    Parameters
    ----------
    name
        Tag.
    children
        `Html` is inserted as it is, any other string is escaped.
    attributes
        Escaped. A trailing underscore is dropped (``class_``), and None leaves the attribute out.

    Examples
    --------
    >>> print(element("b", "1 < 2"), end="")
    <b>1 &lt; 2</b>
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
    """Concatenate pieces, escaping those that are plain text."""
    return Html("".join(c if isinstance(c, Html) else html.escape(printable(c)) for c in children))


def with_code(text: str) -> Html:
    """Set what stands between backticks as code, as warnings name options.

    Examples
    --------
    >>> print(with_code("`seed` < 0"), end="")
    <code>seed</code> &lt; 0
    """
    pieces = text.split("`")
    if len(pieces) % 2 == 0:  # one is left over
        return join([text])
    return join(Html(element("code", p).strip()) if i % 2 else p for i, p in enumerate(pieces))


def section(anchor: str, title: str, *children: str) -> Html:
    """Make one section of the page."""
    return element("section", element("h2", title), *children, id=anchor)


def folded(title: str, *children: str) -> Html:
    """Make a part that is closed until it is opened."""
    inner = element("div", *children)
    return element("details", element("summary", title), inner, class_="folded")


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int | Collection[int] = 1
) -> Html:
    """Make a table; columns of numbers are aligned right.

    Parameters
    ----------
    head
        Names of the columns.
    rows
        Their cells.
    words
        Which columns are text: the first so many, or their numbers.
    """
    text = range(words) if isinstance(words, int) else words
    kinds = ["w" if n in text else "n" for n in range(len(head))]
    # A word joiner keeps a unit such as eV/Å on one line.
    head = [h.replace("/Å", "/\u2060Å") for h in head]
    top = join(element("th", h, class_=k) for h, k in zip(head, kinds, strict=True))
    body = join(
        element("tr", *(element("td", c, class_=k) for c, k in zip(row, kinds, strict=True)))
        for row in rows
    )
    inner = element("table", element("thead", element("tr", top)), element("tbody", body))
    return element("div", inner, class_="scroll", tabindex="0")


def number(value: float, digits: int = 2) -> str:
    """Fixed-point number with thin spaces between thousands; an en dash if it is not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.{digits}f}".replace(",", _THIN)
    return text.replace("-", "−")


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Number with its noun: ``1 frame``, ``44 frames``."""
    return f"{number(n, 0)} {noun if n == 1 else plural or noun + 's'}"


def listing(items: Sequence[str]) -> str:
    """Join words with commas and an *and*."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def duration(seconds: float) -> str:
    """Duration in s, min or h."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
