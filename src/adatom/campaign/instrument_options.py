"""Options of an instrument, from a TOML file and from the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from adatom.errors import BadInput
from adatom.instrument.protocol import Instrument


def instrument_options(
    instrument: Instrument, path: Path | None, more: Mapping[str, Any] | None = None
) -> BaseModel:
    """Read the options of an instrument.

    Parameters
    ----------
    instrument
        Whose options.
    path
        TOML file; None for the defaults.
    more
        Options that replace those of the file.

    Raises
    ------
    BadInput
        If the file or an option cannot be used.
    """
    try:
        read = {} if path is None else tomllib.loads(path.read_text(encoding="utf-8"))
        return instrument.options_type(**{**read, **(more or {})})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        fields = ", ".join(instrument.options_type.model_fields)
        raise BadInput(
            f"options of the instrument {instrument.name}" if path is None else str(path),
            expected=f"a TOML file with options of the instrument {instrument.name}: {fields}",
            got=" ".join(str(error).split()),
            todo="Correct the file.",
        ) from error
