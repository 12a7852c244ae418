"""The few kinds of error adatom raises; each says what was expected, what came and what to do."""

from __future__ import annotations

import unicodedata

WRONG_MATERIAL = 3  # exit code where frames do not show the material, or none that is known


class AdatomError(Exception):
    """Base of every error that adatom raises on purpose.

    Parameters
    ----------
    subject
        What the error is about: a file, an option, an engine.
    expected
        What would have been right.
    got
        What came instead.
    todo
        What the user can do about it.
    """

    exit_code = 1

    def __init__(self, subject: str, *, expected: str, got: str, todo: str) -> None:
        subject, expected, got, todo = map(printable, (subject, expected, got, todo))
        self.subject = subject
        self.expected = expected
        self.got = got
        self.todo = todo
        super().__init__(f"{subject}: expected {expected}, got {got}. {todo}")

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes whole (keyword-only arguments do not by default)."""
        return _rebuild, (type(self), self.subject, self.expected, self.got, self.todo)


class BadInput(AdatomError):
    """Something that the user gave cannot be used; nothing was written. Exit code 2."""

    exit_code = 2


class BlankFrame(BadInput):
    """A frame without contrast, as from a blanked beam: a movie can go on without it."""


class DamagedFile(BadInput):
    """A file or frame that its reader cannot read; other files of a movie can go on without it."""


class FilesDiffer(BadInput):
    """Files of several sizes or scales were given as one movie."""


class EngineMissing(BadInput):
    """A simulation engine that was asked for is not installed; says how to install it."""


class NoMaterial(AdatomError):
    """No material was named, and the frames do not clearly show one; exit code 3."""

    exit_code = WRONG_MATERIAL


class WrongMaterialWarning(UserWarning):
    """The frames do not show the material that was named.

    The command line ends with exit code 3. In Python,
    ``warnings.simplefilter("error", WrongMaterialWarning)`` makes it an exception.
    """


class StepFailed(AdatomError):
    """A step ran and did not reach its result (a relaxation that exploded, a full disk)."""


class NoFrame(StepFailed):
    """An instrument gave no frame in time; the next request may be answered."""


class NoMoreFrames(NoFrame):
    """An instrument has no further frames, as a replay that is over."""


class InstrumentGone(StepFailed):
    """An instrument does not answer any more, and will not."""


def printable(text: str) -> str:
    r"""Make text from a file safe for a terminal: characters that steer it become visible.

    Control characters, and those that turn the direction of writing, are replaced by their
    escapes.

    Examples
    --------
    >>> print(printable("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else character
        for character in str(text)
    )


def _rebuild(
    kind: type[AdatomError], subject: str, expected: str, got: str, todo: str
) -> AdatomError:
    return kind(subject, expected=expected, got=got, todo=todo)
