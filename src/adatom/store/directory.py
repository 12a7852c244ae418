"""The campaign directory: opening it, its configuration, and the paths of its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Self

import numpy as np
import tomli_w

from adatom.core.toml import parse_toml
from adatom.errors import BadInput
from adatom.store.atomic import TEMPORARY, explained, sweep_leftovers
from adatom.store.ledger import Ledger
from adatom.store.lock import LOCK_NAME, DirectoryLock
from adatom.store.tables import write_text

# Version of the directory's layout; raise it when an old adatom cannot read a new one
CAMPAIGN_SCHEMA = 2
_CONFIG_NAME = "campaign.toml"  # file whose presence makes a directory a campaign
MOVE = "move"  # folder of the move after which the frames were taken
_TABLE = "campaign"  # table of campaign.toml that adatom writes for itself
_OTHER_DIRECTORY = "Name another directory with -o."


class CampaignDirectory:
    """An open campaign directory, made by `open` or `existing`; close it after use.

    Attributes
    ----------
    path
        Absolute path (simulation engines change the working directory).
    config
        The resolved configuration without the values that are None.
    fingerprint
        Hash of the input movie.
    source
        Files that the movie was read from.
    """

    def __init__(
        self,
        path: Path,
        *,
        config: dict[str, Any],
        about: dict[str, Any],
        lock: DirectoryLock | None,
    ) -> None:
        self.path = path
        self.config = config
        self.fingerprint = str(about["fingerprint"])
        self.source = tuple(str(s) for s in about.get("source", ()))
        self._about = about
        self._lock = lock
        self._ledger: Ledger | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        fingerprint: str,
        *,
        source: Sequence[str] = (),
        count: int = 0,
        earlier: Callable[[int], str] | None = None,
    ) -> CampaignDirectory:
        """Create a campaign directory, or open an existing one for writing.

        A new configuration for the same input replaces the old one. The keys of the ledger hash
        the options, so steps whose options changed run again. Input that begins with the frames of
        the old one extends the campaign.

        Parameters
        ----------
        path
            Directory; missing, empty, or a campaign of the same input.
        config
            Full resolved configuration: nested tables of strings, numbers, booleans, lists, paths
            and NumPy scalars. None values are left out, since TOML has no null.
        fingerprint
            Hash of the input movie.
        source
            Files that the movie was read from, for the reader of ``campaign.toml``.
        count
            Number of frames of the movie.
        earlier
            Gives the fingerprint of the movie's first n frames.

        Raises
        ------
        BadInput
            If the directory is not a campaign, belongs to other input data or a newer adatom, is
            in use by another process, or cannot be written. Nothing in it is changed.
        StepFailed
            If the disk is full.
        """
        plain = _toml_table(config)
        if _TABLE in plain:
            raise ValueError(f"config: expected no table named {_TABLE!r}, which is adatom's own")
        root = Path(path).expanduser().absolute()
        with explained(root):
            _refuse_others(root, fingerprint, count, earlier)
            root.mkdir(parents=True, exist_ok=True)
            lock = DirectoryLock(root)
            try:
                # Check again under the lock: another process may have created it meanwhile.
                old = _refuse_others(root, fingerprint, count, earlier)
                about = {
                    "schema": CAMPAIGN_SCHEMA,
                    "version": installed_version("adatom"),
                    "fingerprint": fingerprint,
                    "frames": count,
                    "source": [str(s) for s in source] or (old or {}).get("source", []),
                    "created": (old or {}).get("created", _now()),
                }
                campaign = cls(root, config=plain, about=about, lock=lock)
                campaign.write_config(config)
                campaign._make_ready()
            except BaseException:
                lock.release()
                raise
        return campaign

    @classmethod
    def existing(cls, path: str | Path, *, read_only: bool = False) -> CampaignDirectory:
        """Open an existing campaign, for ``resume``, ``simulate`` and ``show``.

        Parameters
        ----------
        path
            The directory.
        read_only
            Take no lock and change nothing; this works while the campaign runs.

        Raises
        ------
        BadInput
            If the directory is not a campaign (the message names what is missing), is from a
            newer adatom, or is in use by another process.
        """
        root = Path(path).expanduser().absolute()
        with explained(root):
            config, about = _read_config(root)
            if read_only:
                return cls(root, config=config, about=about, lock=None)
            lock = DirectoryLock(root)
            try:
                config, about = _read_config(root)
                campaign = cls(root, config=config, about=about, lock=lock)
                campaign._make_ready()
            except BaseException:
                lock.release()
                raise
        return campaign

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the ledger and release the lock; closing twice is harmless."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        if self._lock is not None:
            self._lock.release()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replace the configuration in ``campaign.toml``; write only if the text changes.

        Raises
        ------
        BadInput
            If the file cannot be written.
        StepFailed
            If the disk is full.
        """
        plain = _toml_table(config)
        text = tomli_w.dumps({_TABLE: self._about, **plain})
        if not self.config_path.exists() or self.config_path.read_text("utf-8") != text:
            write_text(self.config_path, text)
        self.config = plain

    def _make_ready(self) -> None:
        for folder in (self.structures, self.relaxed, self.trajectories, self.parts):
            folder.mkdir(exist_ok=True)
        sweep_leftovers(self.path)
        self.ledger.interrupt()

    @property
    def ledger(self) -> Ledger:
        """The open ledger; opened on first use, closed with the directory."""
        if self._ledger is None:
            self._ledger = Ledger(self.ledger_path, read_only=self._lock is None)
        return self._ledger

    @property
    def config_path(self) -> Path:
        """The full resolved configuration."""
        return self.path / _CONFIG_NAME

    @property
    def ledger_path(self) -> Path:
        """Every step, an SQLite database."""
        return self.path / "ledger.sqlite"

    @property
    def frames_path(self) -> Path:
        """The frames, an OME-Zarr image."""
        return self.path / "frames.zarr"

    @property
    def maps_path(self) -> Path:
        """The ensemble's maps, four OME-Zarr images."""
        return self.path / "maps.zarr"

    @property
    def atoms_path(self) -> Path:
        """Every atom of every frame."""
        return self.path / "atoms.parquet"

    @property
    def defects_path(self) -> Path:
        """Every defect of every frame."""
        return self.path / "defects.parquet"

    @property
    def tracks_path(self) -> Path:
        """Each defect of the movie once, with what made it."""
        return self.path / "tracks.parquet"

    @property
    def transitions_path(self) -> Path:
        """How often defects jump and change their kind."""
        return self.path / "transitions.parquet"

    @property
    def structures(self) -> Path:
        """Directory of the supercells and their random samples."""
        return self.path / "structures"

    @property
    def relaxed(self) -> Path:
        """Directory of the relaxed positions of every defect, with their errors."""
        return self.path / "relaxed"

    @property
    def simulations_path(self) -> Path:
        """One row for every simulation."""
        return self.path / "simulations.parquet"

    @property
    def trajectories(self) -> Path:
        """Directory of the relaxations and dynamics."""
        return self.path / "trajectories"

    @property
    def advice_path(self) -> Path:
        """Ranked actions."""
        return self.path / "advice.json"

    @property
    def film_path(self) -> Path:
        """Film of the move after which the frames were taken, if there was one."""
        return self.path / MOVE / "film.json"

    @property
    def report_path(self) -> Path:
        """The self-contained page."""
        return self.path / "report.html"

    @property
    def parts(self) -> Path:
        """Hidden directory with one file for every finished item of a step, not joined yet."""
        return self.path / ".parts"


def _refuse_others(
    root: Path, fingerprint: str, count: int, earlier: Callable[[int], str] | None
) -> dict[str, Any] | None:
    """Refuse a directory that is not this campaign, or an earlier state of it; change nothing.

    Returns the campaign's own table, or None if there is no campaign yet.
    """
    if not root.exists():
        return None
    if not root.is_dir():
        raise BadInput(str(root), expected="a directory", got="a file", todo=_OTHER_DIRECTORY)
    if not (root / _CONFIG_NAME).exists():
        # A process that is killed before it wrote the configuration leaves only these files, and
        # a move comes before the campaign on its frames.
        others = sorted(
            p.name
            for p in root.iterdir()
            if p.name not in {LOCK_NAME, MOVE} and not p.name.startswith(TEMPORARY)
        )
        if others:
            raise BadInput(
                str(root),
                expected="a new or empty directory, or a campaign",
                got=f"no {_CONFIG_NAME} but {len(others)} other entries ({', '.join(others[:3])})",
                todo=_OTHER_DIRECTORY,
            )
        return None
    _, about = _read_config(root)
    before = about.get("frames")
    grown = (
        earlier is not None
        and isinstance(before, int)
        and 0 < before < count
        and about["fingerprint"] == earlier(before)
    )
    if about["fingerprint"] != fingerprint and not grown:
        raise BadInput(
            str(root),
            expected=f"a campaign of this input (fingerprint {fingerprint})",
            got=f"one of other input (fingerprint {about['fingerprint']}"
            + (f", from {', '.join(about['source'][:3])})" if about.get("source") else ")"),
            todo=_OTHER_DIRECTORY,
        )
    return about


def _read_config(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    path = root / _CONFIG_NAME
    if not root.is_dir():
        got = "a file" if root.exists() else "no such directory"
        raise _no_campaign(root, got)
    if not path.exists():
        raise _no_campaign(root, f"a directory without {_CONFIG_NAME}")
    try:
        table = parse_toml(path.read_text("utf-8"))
    except ValueError as error:  # no TOML, or no text
        raise _no_campaign(path, f"no TOML ({error})") from error
    about = table.pop(_TABLE, None)
    if not isinstance(about, dict):
        raise _no_campaign(path, f"no [{_TABLE}] table")
    for name, kind in (("schema", int), ("fingerprint", str)):
        if not isinstance(about.get(name), kind):
            raise _no_campaign(path, f"a [{_TABLE}] table without {name!r}")
    source = about.get("source", [])
    if not isinstance(source, list) or not all(isinstance(name, str) for name in source):
        raise _no_campaign(path, f"a [{_TABLE}] table with `source` {source!r}, not names of files")
    if about["schema"] > CAMPAIGN_SCHEMA:
        raise BadInput(
            str(path),
            expected=f"a campaign of schema {CAMPAIGN_SCHEMA} or older",
            got=f"schema {about['schema']}, written by adatom {about.get('version', '(unknown)')}",
            todo="Install that adatom or a newer one.",
        )
    return table, about


def _no_campaign(path: Path, got: str) -> BadInput:
    return BadInput(
        str(path),
        expected=f"a campaign directory (with a {_CONFIG_NAME} that adatom wrote)",
        got=got,
        todo="Name the directory that adatom run -o DIR made.",
    )


def _toml_table(config: Mapping[str, Any]) -> dict[str, Any]:
    return {str(k): _toml_value(v) for k, v in config.items() if v is not None}


def _toml_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _toml_table(value)
    if isinstance(value, (list, tuple)):
        return [_toml_value(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
