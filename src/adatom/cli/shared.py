"""Options that every command of a campaign or a training has: `--quiet` and `--log`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from adatom.cli import screen

_OPTIONS = (
    (
        "quiet",
        Annotated[
            bool, typer.Option("--quiet", "-q", help="warnings, errors and --json output alone")
        ],
        False,
    ),
    (
        "log",
        Annotated[
            Path | None,
            typer.Option("--log", help="also write progress, warnings and errors to this file"),
        ],
        None,
    ),
)


def with_shared_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the shared options to a command, and obey them while it runs."""

    @functools.wraps(command)
    def run(*args: Any, quiet: bool = False, log: Path | None = None, **given: Any) -> None:
        screen.obey(quiet=quiet, log=log)
        command(*args, **given)

    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, kind, default in _OPTIONS
    ]
    parameters = [*signature.parameters.values(), *added]
    # typer reads the signature and the annotations; a wrapped function would be read in its place.
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    del run.__wrapped__
    return run
