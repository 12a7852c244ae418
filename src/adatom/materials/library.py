"""Materials by name, from a TOML file, or from a structure file and a zone axis."""

from __future__ import annotations

import difflib
import re
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols, reference_states
from pydantic import ValidationError
from scipy.spatial import cKDTree

from adatom.core import GRAPHENE, Material
from adatom.core.arrays import FloatArray
from adatom.core.composition import count_formula
from adatom.core.material import ANY, Form
from adatom.core.plugins import DEFECT_NAMERS, ENGINES, check_registered
from adatom.core.toml import parse_toml
from adatom.errors import BadInput
from adatom.materials.depth import written_out
from adatom.materials.file_schema import (
    LARGEST_CELL_A,
    FromStructure,
    KnockOn,
    MaterialFile,
)
from adatom.materials.projection import Projection, project

_BUILT_IN = resources.files("adatom.materials") / "files"
_THICK_A, _GAP_A = 6.0, 8.0  # Å: a sheet is at most this thick, with at least this gap above it
_FAINT = 0.09  # intensity relative to the brightest column below which a column is not visible
_CUBIC = ("sc", "fcc", "bcc", "diamond", "zincblende", "rocksalt", "cesiumchloride", "fluorite")
_SMALLEST_CELL_A = 1.0  # Å: cube root of a cell's volume
_HEADER_LINES = 10  # lines of a structure file that may hold numbers of atoms
_CLOSEST_A = 0.6  # Å: columns nearer than this are one site given twice, or not resolved
_SAME_BOND = 1.15  # neighbours within this factor of the shortest distance are bonded


def material_names() -> tuple[str, ...]:
    """Names of the built-in materials."""
    files = [f.name.removesuffix(".toml") for f in _BUILT_IN.iterdir() if f.name.endswith(".toml")]
    names = [_parse((_BUILT_IN / f"{f}.toml").read_text("utf-8"), f, None).name for f in files]
    return tuple(sorted([GRAPHENE.name, *names], key=str.lower))


def load_material(name: str, zone_axis: tuple[int, int, int] = (0, 0, 1)) -> Material:
    """Find a material by what the user calls it.

    Parameters
    ----------
    name
        A built-in name, a TOML material file, or any structure file that ASE reads.
    zone_axis
        Of a structure file: the lattice direction of the beam.

    Raises
    ------
    BadInput
        If there is no such material, or a file cannot be read; the message says what is wrong.
    """
    key = name.strip()
    if key.lower() == GRAPHENE.name:
        return GRAPHENE
    built_in = _BUILT_IN / f"{key.lower()}.toml"
    if "/" not in key and built_in.is_file():
        return _parse(built_in.read_text("utf-8"), key, None)
    path = Path(key).expanduser()
    if path.is_file():
        if path.suffix.lower() == ".toml":
            return _parse(_text_of(path), str(path), path.parent)
        return _from_structure(path, zone_axis)
    names = material_names()
    close = _same_compound(key, names)
    hint = f"Did you mean {close!r}? " if close else ""
    raise BadInput(
        f"`material` {name}",
        expected="one of " + ", ".join(names) + ", a TOML material file, or a structure file",
        got=repr(name),
        todo=hint + "Name one of these.",
    )


def _same_compound(given: str, names: tuple[str, ...]) -> str | None:
    """Find the name that is meant: the same letters and numbers, or a misspelt word.

    Another compound is never meant: MoTe2 is not MoSe2.
    """
    plain = {re.sub(r"[^a-z0-9]", "", name.lower()): name for name in names}
    key = re.sub(r"[^a-z0-9]", "", given.lower())
    if key in plain:
        return plain[key]
    # The first letters have to agree: gold on carbon is not platinum on carbon.
    words = [name for name in plain if name[:2] == key[:2] and _elements(name) is None]
    close = difflib.get_close_matches(key, words, n=1) if _elements(key) is None else []
    return plain[close[0]] if close else None


def _elements(text: str) -> str | None:
    """Read text in any case as a chemical formula; None if it is a word."""
    symbols = sorted((s for s in chemical_symbols[1:]), key=len, reverse=True)
    pattern = "(?:(?:" + "|".join(map(str.lower, symbols)) + r")\d*)+"
    formula = re.fullmatch(pattern, text.lower()) is not None
    return text if formula and (len(text) <= 4 or any(c.isdigit() for c in text)) else None


def command_line_name(
    material: str | Path | Material, zone_axis: tuple[int, int, int] = (0, 0, 1)
) -> str:
    """Give what to type after ``adatom train`` for a material.

    Parameters
    ----------
    material
        As `load_material` takes it, or a `Material` itself.
    zone_axis
        Of a structure file.

    Examples
    --------
    >>> command_line_name("silicon.cif", (1, 1, 0))
    'silicon.cif --zone-axis 1,1,0'
    """
    if isinstance(material, Material):
        try:
            known = load_material(material.name) == material
        except BadInput:
            known = False
        return material.name if known else "FILE.toml"
    axis = "" if zone_axis == (0, 0, 1) else " --zone-axis " + ",".join(map(str, zone_axis))
    return shlex.quote(str(material)) + axis


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            str(path), expected="a TOML file in UTF-8", got=str(error),
            todo="Save it as UTF-8 text.",
        ) from error  # fmt: skip


def _parse(text: str, source: str, folder: Path | None) -> Material:
    todo = "See docs/how-to/add-a-material.md for what a material file says."
    try:
        given = MaterialFile.model_validate(parse_toml(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise BadInput(
            f"{source}{', ' if where else ''}{where}",
            expected=str(first["msg"]).removeprefix("Input should be "),
            got=repr(first.get("input"))[:80],
            todo=todo,
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(source, expected="a TOML file", got=str(error), todo=todo) from error
    check_registered(DEFECT_NAMERS, given.defect_namer, f"{source}, defect_namer")
    for engine in given.simulated_by:
        check_registered(ENGINES, engine, f"{source}, simulated_by")
    others = [c.is_ for other in given.polytype for c in other.columns]
    _check_knock_on(given.knock_on, source)
    _check_labels([*given.atoms, *given.extra, *others], source)
    if given.atoms:
        return _dispersed(given)
    if given.crystal is not None:
        columns = given.crystal.columns
        _check_labels([c.is_ for c in columns], source)
        cell = np.array(given.crystal.cell_A)
        at = np.array([c.at for c in columns])
        if np.linalg.det(cell) < 0:  # left-handed: the same crystal with its vectors exchanged
            cell, at = cell[::-1], at[:, ::-1]
        if abs(np.linalg.det(cell)) < 1e-3:
            raise BadInput(
                source, expected="two independent lattice vectors", got=str(cell.tolist()),
                todo=todo,
            )  # fmt: skip
        stacks = [(c.is_, c.z_A) for c in columns]
        known = given.form == "sheet" or given.crystal.period_A is not None
        depth = written_out(cell, at, stacks, given.crystal.period_A, source) if known else None
        seen = Projection(cell, at, tuple(c.is_ for c in columns), depth)
    else:
        assert given.structure is not None  # MaterialFile has one of the three  # noqa: S101
        seen = project(_atoms_of(given.structure, folder, source), given.structure.zone_axis)
    return _crystal(given, seen)


def _check_knock_on(given: KnockOn | None, source: str) -> None:
    """Refuse data of knock-on damage that do not name elements."""
    if given is None:
        return
    named = {"element": given.element}
    for i, site in enumerate(given.site):
        named[f"site.{i}.element"] = site.element
        if site.beside:
            named[f"site.{i}.beside"] = site.beside
    for key, symbol in named.items():
        if symbol not in chemical_symbols[1:]:
            raise BadInput(
                f"{source}, knock_on.{key}", expected="a chemical symbol",
                got=repr(symbol), todo="Name the atom that is displaced, or the one beside it.",
            )  # fmt: skip


def _check_labels(labels: list[str], source: str) -> None:
    for label in labels:
        try:
            known = ANY not in dict(count_formula(label))
        except BadInput:
            known = False
        if not known:
            raise BadInput(
                source,
                expected="chemical symbols, or formulas such as S2",
                got=repr(label),
                todo="Name the column by its atoms.",
            )


def _atoms_of(given: FromStructure, folder: Path | None, source: str) -> Atoms:
    if given.file is not None:
        return read_structure((folder or Path()) / given.file)
    import ase.build  # takes 0.2 s to import, and few materials need it

    options = dict(given.bulk or {})
    for key in ("a", "b", "c"):
        length = options.get(key, 1.0)
        if not (isinstance(length, (int, float)) and 0 < length < LARGEST_CELL_A):
            raise BadInput(
                f"{source}, structure.bulk.{key}", expected="a length in Å, above 0",
                got=repr(length), todo="Mend the lattice constant.",
            )  # fmt: skip
    try:
        if _structure_of(options) in _CUBIC and not options.get("orthorhombic"):
            options.setdefault("cubic", True)  # zone axes are meant in the cubic cell
        atoms = ase.build.bulk(**options)
        if _structure_of(options) == "bct":  # and here in the tetragonal one
            atoms = ase.build.make_supercell(atoms, [[0, 1, 1], [1, 0, 1], [1, 1, 0]])
    except Exception as error:  # ASE checks arguments by using them
        raise BadInput(
            source, expected="arguments of ase.build.bulk", got=str(error),
            todo="Mend [structure] bulk, or name a structure file.",
        ) from error  # fmt: skip
    return _checked(atoms, source)


def _structure_of(bulk: dict[str, Any]) -> str | None:
    """Crystal structure of the arguments of ``ase.build.bulk``, which knows that of an element."""
    if "crystalstructure" in bulk:
        return str(bulk["crystalstructure"])
    name = bulk.get("name")
    known = reference_states[atomic_numbers[name]] if name in atomic_numbers else None
    return str(known["symmetry"]) if known else None


def read_structure(path: Path) -> Atoms:
    """Read a structure file of any format that ASE reads.

    Raises
    ------
    BadInput
        If it cannot be read, or holds no atoms in a cell.
    """
    import ase.io

    if not path.exists():
        raise BadInput(
            str(path), expected="a structure file", got="no such file", todo="Check the name."
        )
    try:
        _check_counts(path)
        atoms = ase.io.read(path)
    except Exception as error:  # readers of a hundred formats raise anything
        raise BadInput(
            str(path),
            expected="a structure file that ASE reads (CIF, POSCAR, extxyz, ...)",
            got=f"{type(error).__name__}: {error}",
            todo="Check the file, or write a TOML material file.",
        ) from error
    if isinstance(atoms, list):  # an empty file of a format that holds several
        atoms = Atoms()
    return _checked(atoms, str(path))


def _check_counts(path: Path) -> None:
    """Refuse a file that says more atoms than it has bytes: readers allocate what it says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(_HEADER_LINES):
            words = file.readline(_HEADER_LINES * 1024).split()
            if words and all(w.isdigit() for w in words) and sum(map(int, words)) > size:
                raise ValueError(f"it says {sum(map(int, words))} atoms in {size} bytes")


def _checked(atoms: Atoms, source: str) -> Atoms:
    """Refuse a structure that cannot be projected: no cell, no atom, or numbers that are none."""
    numbers = np.concatenate([atoms.cell.array.ravel(), atoms.positions.ravel()])
    finite = bool(np.isfinite(numbers).all())
    if finite and atoms.cell.rank < 3:
        raise BadInput(
            source,
            expected="a structure with three lattice vectors",
            got="one without",
            todo="Write the cell into the file; for a sheet, any height will do.",
        )
    height = abs(atoms.cell.volume) ** (1.0 / 3.0)
    odd = ""
    if not finite:
        odd = "positions or lattice vectors that are not finite"
    elif not len(atoms):
        odd = "no atom"
    elif (atoms.numbers < 1).any():
        odd = "atoms of no element (X)"
    elif not _SMALLEST_CELL_A < height < LARGEST_CELL_A:
        odd = f"a cell of {height:.3g} Å"
    if odd:
        raise BadInput(
            source, expected="a crystal: elements at places in a cell, in Å", got=odd,
            todo="Mend the file.",
        )  # fmt: skip
    return atoms


def _from_structure(path: Path, zone_axis: tuple[int, int, int]) -> Material:
    atoms = read_structure(path)
    seen = project(atoms, zone_axis)
    form: Form = "sheet" if zone_axis == (0, 0, 1) and _is_sheet(atoms) else "columns"
    given = MaterialFile(
        name=re.sub(r"[^A-Za-z0-9._+-]+", "-", path.stem) or "material", form=form,
        structure=FromStructure(file=str(path), zone_axis=zone_axis),
    )  # fmt: skip
    return _crystal(given, seen)


def _is_sheet(atoms: Atoms) -> bool:
    """Tell whether the atoms fill a layer up to 6 Å thick, with more than 8 Å of vacuum above."""
    height = np.sort(atoms.get_scaled_positions(wrap=True)[:, 2])
    gaps = np.diff(np.concatenate([height, height[:1] + 1.0]))
    length = float(atoms.cell.lengths()[2])
    gap = float(gaps.max()) * length
    return gap > _GAP_A and length - gap <= _THICK_A


def _crystal(given: MaterialFile, seen: Projection) -> Material:
    """Keep the columns that annular dark field shows, brightest first."""
    labels = sorted(set(seen.labels))
    probe = Material(
        "", ((1, 0), (0, 1)), ((0, 0),), (labels[0],), tuple(labels), 1.0, 0, 0,
        given.contrast_exponent,
    )  # fmt: skip
    bright = dict(zip(labels, probe.brightness(), strict=True))
    top = max(bright.values())
    keep = [i for i, label in enumerate(seen.labels) if bright[label] > _FAINT * top]
    order = sorted(keep, key=lambda i: -bright[seen.labels[i]])
    sites = tuple(seen.labels[i] for i in order)
    basis = seen.basis[order]
    bond, coordination = _neighbours(seen.cell, basis)
    if bond < _CLOSEST_A:
        raise BadInput(
            given.name,
            expected=f"columns at least {_CLOSEST_A} Å apart",
            got=f"two at {bond:.2f} Å",
            todo="Give a zone axis of lower index, or each place of the cell once.",
        )
    others = tuple(
        tuple((column.is_, *column.at) for column in other.columns) for other in given.polytype
    )
    more = [label for other in others for label, _, _ in other]
    species = tuple(dict.fromkeys([*sites, *more, *given.extra]))
    (a, b), (c, d) = seen.cell.tolist()
    # A structure file's crystal has a period along the beam, also that of a sheet with vacuum.
    crystal = seen.crystal and (seen.crystal.as_sheet() if given.form == "sheet" else seen.crystal)
    return Material(
        given.name, ((a, b), (c, d)), tuple((float(x), float(y)) for x, y in basis), sites,
        species, bond, coordination, 6 if coordination == 3 else 4, given.contrast_exponent,
        others, given.form, given.probe_sigma_A, crystal=crystal,
        **given.abilities(),
    )  # fmt: skip


def _neighbours(cell: FloatArray, basis: FloatArray) -> tuple[float, int]:
    """Give the shortest distance between columns, Å, and the number of neighbours at about it."""
    k = np.arange(-3, 4)
    cells = np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1).reshape(-1, 2)
    points = np.concatenate([(cells + b) @ cell for b in basis])
    distance = cKDTree(points).query(basis @ cell, k=min(13, len(points)))[0][:, 1:]
    bond = float(distance.min())
    counts = (distance < _SAME_BOND * bond).sum(axis=1)
    return bond, int(np.median(counts))


def _dispersed(given: MaterialFile) -> Material:
    side = 4 * given.closest_A
    species = tuple(dict.fromkeys([*given.atoms, *given.extra]))
    return Material(
        given.name, ((side, 0.0), (0.0, side)), ((0.0, 0.0),), (given.atoms[0],), species,
        given.closest_A, 0, 0, given.contrast_exponent, (), "atoms", given.probe_sigma_A,
        **given.abilities(),
    )  # fmt: skip
