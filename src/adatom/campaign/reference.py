"""Write the page that explains every key of ``campaign.toml``, from the options' own fields."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from adatom.campaign.config import Config

# Unit by the suffix of a key's name; longer suffixes come first.
_UNITS = {
    "_per_A2": "e⁻/Å²", "_cross_section_A2": "Å²", "_eV_A": "eV/Å", "_A": "Å", "_kV": "kV",
    "_K": "K", "_ps": "ps", "_fs": "fs", "_eV": "eV", "_nats": "nats", "_pA": "pA", "_s": "s",
    "_seconds": "s", "pixels": "pixels",
    "_frames": "frames", "counts": "counts",
}  # fmt: skip
_TYPES = {
    bool: "true or false", int: "whole number", float: "number", str: "text", Ellipsis: "...",
}  # fmt: skip


def reference() -> str:
    r"""Give the reference of the configuration as Markdown: a table of keys for every section.

    Returns
    -------
    Sections in the order of ``campaign.toml``, each with its purpose, and the type, default, unit
    and meaning of every key.

    Examples
    --------
    >>> lines = reference().splitlines()
    >>> print("\n".join([*lines[2:4], lines[6]]))
    | key | type | default | unit | what it says |
    |---|---|---|---|---|
    | `seed` | whole number | `0` |  | seed of all random numbers |
    """
    return "\n".join(_section(Config, ""))


def _section(model: type[BaseModel], name: str) -> Iterator[str]:
    """One model: a heading, its purpose, a table of its own keys, then its inner sections."""
    inner = {}
    if name:
        yield f"## [{name}]\n"
    yield f"{_purpose(model)}\n" if name else "Keys at the top of the file:\n"
    rows = []
    for key, field in model.model_fields.items():
        nested = _model_in(field.annotation)
        if nested is None:
            rows.append(_row(key, field))
        else:
            inner[f"{name}.{key}" if name else key] = nested
    if rows:
        yield "| key | type | default | unit | what it says |"
        yield "|---|---|---|---|---|"
        yield from rows
        yield ""
    for key, nested in inner.items():
        yield from _section(nested, key)


def _purpose(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _row(key: str, field: FieldInfo) -> str:
    unit = next((u for end, u in _UNITS.items() if key.endswith(end)), "")
    said = (field.description or "").removesuffix(f", {unit}").replace("|", "\\|")
    kind = _type(field.annotation).replace("|", "\\|")
    return f"| `{key}` | {kind} | {_default(field)} | {unit} | {said} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "not set"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    """Write a value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Give the model in a field's annotation, optional or not; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [m for inner in get_args(annotation) if (m := _model_in(inner)) is not None]
    return found[0] if found else None


def _type(annotation: Any) -> str:
    """Name a type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{_toml(v)}`" for v in inner)
    if origin in (Union, UnionType):
        return " or ".join(_type(a) for a in inner if a is not type(None))
    if origin is tuple:
        listed = inner[:1] if Ellipsis in inner else inner
        count = "list" if Ellipsis in inner else f"list of {len(inner)}"
        return f"{count}: {_type(listed[0])}"
    if hasattr(annotation, "__metadata__"):
        return _type(inner[0])
    return _TYPES.get(annotation, getattr(annotation, "__name__", str(annotation)))
