"""The page of a batch: one row a file, each with its picture, its answer and its own page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from adatom.core import Frame, Material
from adatom.report.images import smoothed_picture
from adatom.report.markup import Html, count, element, table
from adatom.report.report import document
from adatom.report.words import capital, kind_in_words
from adatom.store import write_text

_PICTURE_PX = 128  # pixels: a file's picture, about a kilobyte


@dataclass(frozen=True, slots=True, eq=False)
class BatchRow:
    """One file of a batch.

    Parameters
    ----------
    file
        Name of the file.
    folder
        Its campaign, a folder beside the page; empty if it has none.
    status
        ``done``, or why it was not.
    frame
        Its first frame; None if there is none.
    frames, atoms
        Numbers of frames and of atoms.
    defects
        How often each kind was seen.
    warnings
        Number of warnings.
    """

    file: str
    folder: str
    status: str
    frame: Frame | None = None
    frames: int = 0
    atoms: int = 0
    defects: dict[str, int] | None = None
    warnings: int = 0


def write_batch_page(rows: Sequence[BatchRow], material: Material, path: Path) -> None:
    """Write the page of a batch.

    Parameters
    ----------
    rows
        The files, in their order.
    material
        What they show.
    path
        The page; links lead to the folders beside it.

    Raises
    ------
    BadInput
        If it cannot be written.
    StepFailed
        If the disk is full.
    """
    done = sum(row.status == "done" for row in rows)
    title = f"{capital(material.name)}: {count(len(rows), 'file')}"
    head = ("", "File", "Found", "Frames", "Atoms", "Warnings")
    body = [_cells(row, material) for row in rows]
    parts = [
        element("header", element("nav", element("b", title)),
                element("h1", f"{done} of {count(len(rows), 'file')} done"),
                element("p", "Each file is a campaign of its own, since their sizes or scales "
                        "differ. The table is in results.parquet and results.csv.", class_="lead")),
        element("main", table(head, body, words=3), class_="batch"),
    ]  # fmt: skip
    write_text(path, document(title, element("body", *parts)))


def _cells(row: BatchRow, material: Material) -> tuple[Html | str, ...]:
    picture = Html("")
    if row.frame is not None:
        picture = element("img", src=smoothed_picture(row.frame, _PICTURE_PX), alt=row.file)
    name = element("b", row.file)
    if row.folder:
        name = element("a", name, href=f"{quote(row.folder)}/report.html")
    if row.status != "done":
        return picture, name, row.status, "–", "–", "–"
    kinds = sorted((row.defects or {}).items(), key=lambda item: -item[1])[:4]
    said = [f"{n} × {kind_in_words(k, material)}" if n > 1 else kind_in_words(k, material)
            for k, n in kinds]  # fmt: skip
    found = capital("; ".join(said)) if said else "No defect"
    return picture, name, found, str(row.frames), str(row.atoms), str(row.warnings or "")
