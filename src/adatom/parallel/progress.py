"""Reports of progress: the command line draws them, the library ignores them."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of every step."""

    def start(self, step: str, total: int, done: int) -> None:
        """Begin a step of `total` items, `done` of which were finished by an earlier run."""
        ...

    def advance(self, step: str) -> None:
        """Count one more item of the step as finished."""
        ...

    def finish(self, step: str) -> None:
        """End the step."""
        ...

    def warn(self, text: str) -> None:
        """Show something that the user should know."""
        ...


class Silent:
    """A progress that ignores every report."""

    def start(self, step: str, total: int, done: int) -> None:
        """Ignore."""

    def advance(self, step: str) -> None:
        """Ignore."""

    def finish(self, step: str) -> None:
        """Ignore."""

    def warn(self, text: str) -> None:
        """Ignore."""
