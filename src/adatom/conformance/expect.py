"""How a conformance test says what is wrong."""

from __future__ import annotations

from collections.abc import Callable

from adatom.errors import BadInput


def expect(true: object, subject: str, *, expected: str, got: object) -> None:
    """Raise where something is not as it must be.

    Parameters
    ----------
    true
        What must hold.
    subject
        What it is about.
    expected, got
        As in every error of adatom.

    Raises
    ------
    AssertionError
        If it does not hold.
    """
    if not true:
        raise AssertionError(f"{subject}: expected {expected}, got {got}")


def expect_refused(call: Callable[[], object], subject: str, *, mentions: str = "") -> None:
    """Make sure that a call raises `BadInput`, with words that a user understands.

    Parameters
    ----------
    call
        What must be refused.
    subject
        What it is about.
    mentions
        What the message must name.

    Raises
    ------
    AssertionError
        If it is not refused, in another way, or without naming it.
    """
    try:
        call()
    except BadInput as error:
        expect(mentions in str(error), subject, expected=f"words on {mentions!r}", got=error)
        return
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise AssertionError(f"{subject}: expected BadInput, got {got}") from error
    raise AssertionError(f"{subject}: expected BadInput, got no error")
