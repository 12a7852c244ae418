"""How a campaign tells that it is alive; the command line draws it, the library stays silent."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of every step."""

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
    """Progress for nobody."""

    def start(self, step: str, total: int, done: int) -> None:
        """Ignore."""

    def advance(self, step: str) -> None:
        """Ignore."""

    def finish(self, step: str) -> None:
        """Ignore."""

    def warn(self, text: str) -> None:
        """Ignore."""
