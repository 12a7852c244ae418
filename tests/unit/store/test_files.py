"""The files of a campaign: each comes back as it was written, and damage is noticed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import ase
import ase.build
import numpy as np
import polars as pl
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adatom.core import DefectTable, Record, SimulationResult, Structure, Vacancy
from adatom.core.columns import Column
from adatom.errors import BadInput, StepFailed
from adatom.store import (
    RESULTS_SCHEMA,
    file_hash,
    is_intact,
    read_json,
    read_result,
    read_structures,
    read_table,
    read_text,
    read_trajectory,
    result_files,
    results_table,
    write_json,
    write_result,
    write_structures,
    write_table,
    write_text,
    write_trajectory,
)

LEFTOVERS = (".adatom-tmp-", ".partial")


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(root)): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"")
        for p in sorted(root.rglob("*"))
    }


def leftovers(root: Path) -> list[Path]:
    return [p for p in root.rglob("*") if any(mark in p.name for mark in LEFTOVERS)]


# --- tables, JSON, text -------------------------------------------------------------------------


def test_tables_json_and_text_come_back(tmp_path):
    table = pl.DataFrame(
        {"x_A": [1.5, float("nan"), None], "element": ["C", "Si", "Å"], "atoms": [[1], [], [2, 3]]},
        schema={"x_A": pl.Float64, "element": pl.String, "atoms": pl.List(pl.Int32)},
    )
    path = tmp_path / "odd [1] *.parquet"
    assert write_table(path, table) == file_hash(path)
    columns = {
        "x_A": Column(pl.Float64(), "Å", "Position."),
        "atoms": Column(pl.List(pl.Int32), "", "Numbers."),
    }
    assert read_table(path).drop("atoms").equals(table.drop("atoms"), null_equal=True)
    assert read_table(path)["atoms"].to_list() == ["1", "", "2 3"]
    write_table(path, table, columns)
    told = json.loads(pl.read_parquet_metadata(path)["adatom.columns"])
    assert told["x_A"] == {"unit": "Å", "meaning": "Position."}

    value = {
        "b": np.float32(0.5),
        "n": float("nan"),
        "i": [float("inf"), np.int64(3)],
        "a": np.eye(2),
        "record": Record("k", "find", "frame 1", ("p1", "p2"), 3, "0.1.0", 1.5),
        "path": Path("a") / "b",
        "Å": None,
    }
    write_json(tmp_path / "a.json", value)
    back = read_json(tmp_path / "a.json")
    assert back["b"] == 0.5
    assert back["n"] is None
    assert back["i"] == [None, 3]
    assert back["a"] == [[1.0, 0.0], [0.0, 1.0]]
    assert back["record"]["parents"] == ["p1", "p2"]
    assert back["Å"] is None

    write_text(tmp_path / "report.html", "<p>Å\n</p>")
    assert read_text(tmp_path / "report.html") == "<p>Å\n</p>"
    assert not leftovers(tmp_path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "advice.json", {"rank": 1})
    before = snapshot(tmp_path)
    with pytest.raises(TypeError):
        write_json(tmp_path / "advice.json", {"rank": object()})
    with pytest.raises(BaseException, match="Object"):
        write_table(tmp_path / "t.parquet", pl.DataFrame({"o": [object()]}))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_truncated_table_is_noticed(tmp_path, keep):
    path = tmp_path / "atoms.parquet"
    output = write_table(path, pl.DataFrame({"x_A": np.arange(5000.0)}))
    assert is_intact(output, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert not is_intact(output, path)
    with pytest.raises(StepFailed, match=r"atoms\.parquet.*whole parquet table"):
        read_table(path)


def test_missing_files_are_named(tmp_path):
    for read in (read_table, read_json, read_text, read_trajectory, file_hash):
        with pytest.raises(BadInput, match="nowhere"):
            read(tmp_path / "nowhere")
    assert not is_intact("abc", tmp_path / "nowhere")
    assert not is_intact("", write_and_name(tmp_path))


def write_and_name(folder: Path) -> Path:
    write_text(folder / "some.txt", "x")
    return folder / "some.txt"


# --- structures, trajectories, results ----------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["007", "1e5", "5,7", "5 7", "T", "inf", "", 'a"b', "a\\b", "a\nb", "=", "rings 5-7", "_JSON 1"]
)
scalars = st.integers(-(2**60), 2**60) | st.floats() | st.booleans() | texts
infos = st.dictionaries(
    texts.filter(lambda k: k not in {"name", "kind", "frame", "defect", "draw"}),
    scalars | hnp.arrays(np.float64, st.integers(0, 4), elements=st.floats(-9, 9)),
    max_size=4,
)


@st.composite
def structures(draw):
    n = draw(st.integers(1, 6))
    coordinates = hnp.arrays(np.float64, (n, 3), elements=st.floats(-500, 500))
    cell = np.diag(draw(hnp.arrays(np.float64, 3, elements=st.floats(2, 60))))
    cell[1, 0] = draw(st.floats(-5, 5))
    atoms = ase.Atoms(
        draw(st.lists(st.sampled_from(["C", "Si", "Mo", "X"]), min_size=n, max_size=n)),
        positions=draw(coordinates),
        cell=cell,
        pbc=draw(st.tuples(st.booleans(), st.booleans(), st.booleans())),
        info=draw(infos),
        tags=draw(hnp.arrays(np.int64, n, elements=st.integers(0, 9))),
    )
    atoms.set_array("upper", draw(hnp.arrays(np.bool_, n)))
    return Structure(
        atoms=atoms,
        name=draw(texts),
        kind=draw(texts),
        frame=draw(st.integers(-1, 9999)),
        defect=draw(st.integers(-1, 99)),
        draw=draw(st.integers(-1, 99)),
        source_atom=draw(hnp.arrays(np.int64, n, elements=st.integers(-1, 10**6))),
        sigma_A=np.abs(draw(coordinates)),
        fixed=draw(hnp.arrays(np.bool_, n)),
    )


def assert_same_atoms(back: ase.Atoms, atoms: ase.Atoms) -> None:
    assert list(back.numbers) == list(atoms.numbers)
    np.testing.assert_allclose(back.positions, atoms.positions, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(back.cell.array, atoms.cell.array)
    np.testing.assert_array_equal(back.pbc, atoms.pbc)
    assert set(back.arrays) == set(atoms.arrays)
    for name, array in atoms.arrays.items():
        assert back.arrays[name].dtype.kind == array.dtype.kind, name
        np.testing.assert_allclose(back.arrays[name], array, rtol=0, atol=1e-6)


def assert_same_value(back, value) -> None:
    if isinstance(value, np.ndarray):
        np.testing.assert_array_equal(back, value)
    elif isinstance(value, float):
        assert back == value or (np.isnan(back) and np.isnan(value))
    else:
        assert back == value
        assert isinstance(back, str) == isinstance(value, str)


@settings(max_examples=60, deadline=None)
@given(st.lists(structures(), max_size=3))
def test_structures_come_back(given_structures):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "Si3C6.extxyz"
        write_structures(path, given_structures)
        back = read_structures(path)
    assert len(back) == len(given_structures)
    for b, s in zip(back, given_structures, strict=True):
        for label in ("name", "kind", "frame", "defect", "draw"):
            assert getattr(b, label) == getattr(s, label)
        np.testing.assert_array_equal(b.source_atom, s.source_atom)
        np.testing.assert_array_equal(b.fixed, s.fixed)
        np.testing.assert_allclose(b.sigma_A, s.sigma_A, rtol=0, atol=1e-6)
        assert_same_atoms(b.atoms, s.atoms)
        for key, value in s.atoms.info.items():
            assert_same_value(b.atoms.info[key], value)


def test_an_ordinary_structure_is_an_ordinary_file(tmp_path):
    sheet = ase.build.graphene(size=(3, 3, 1), vacuum=8.0)
    structure = Structure.from_ase(sheet)
    write_structures(tmp_path / "s.extxyz", [structure])
    text = (tmp_path / "s.extxyz").read_text("utf-8")
    assert "adatom_info" not in text
    assert "name=C18" in text
    plain = ase.io.read(tmp_path / "s.extxyz")
    assert plain.constraints == []
    assert set(plain.arrays) == {"numbers", "positions", "source_atom", "sigma"}


def trajectory(frames: int = 5) -> tuple[ase.Atoms, ...]:
    rng = np.random.default_rng(1)
    out = []
    for i in range(frames):
        atoms = ase.build.graphene(size=(2, 2, 1), vacuum=8.0)
        atoms.positions += rng.normal(0, 0.05, (8, 3))
        atoms.set_momenta(rng.normal(0, 0.5, (8, 3)))
        atoms.set_constraint(FixAtoms([0, 3]))
        atoms.info["time_fs"] = 10.0 * i
        atoms.calc = SinglePointCalculator(atoms, energy=-10.0 - i, forces=rng.normal(size=(8, 3)))
        out.append(atoms)
    return tuple(out)


def test_a_trajectory_comes_back_with_energies_forces_and_constraints(tmp_path):
    written = trajectory()
    output = write_trajectory(tmp_path / "md.extxyz", written)
    back = read_trajectory(tmp_path / "md.extxyz")
    assert len(back) == 5
    for b, w in zip(back, written, strict=True):
        assert_same_atoms(b, w)
        assert b.get_potential_energy() == w.get_potential_energy()
        np.testing.assert_allclose(
            b.get_forces(apply_constraint=False), w.get_forces(apply_constraint=False), atol=1e-7
        )
        assert b.info["time_fs"] == w.info["time_fs"]
        assert list(b.constraints[0].index) == [0, 3]
    # Cut at the end of a frame it still parses: only the hash can tell.
    lines = (tmp_path / "md.extxyz").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "md.extxyz").write_text("".join(lines[:30]), "utf-8")
    assert len(read_trajectory(tmp_path / "md.extxyz")) == 3
    assert not is_intact(output, tmp_path / "md.extxyz")
    (tmp_path / "md.extxyz").write_text("".join(lines[:27]), "utf-8")
    with pytest.raises(StepFailed, match=r"md\.extxyz"):
        read_trajectory(tmp_path / "md.extxyz")


def result(**changes) -> SimulationResult:
    values = {
        "structure": "Si3C6-f012-d02",
        "draw": 2,
        "engine": "lammps 2025.7 tersoff",
        "task": "dynamics",
        "temperature_K": 300.0,
        "energy_eV": -1234.5678901234567,
        "energy_sd_eV": 0.1,
        "status": "done",
        "seconds": 3.25,
        "trajectory": trajectory(3),
        "trace": {
            "time_fs": np.arange(6.0),
            "energy_eV": np.array([1.0, np.nan, -np.inf, 2.0, 3.0, 1 / 3]),
            "short": np.array([0.5]),
        },
    }
    return SimulationResult(**(values | changes))


@pytest.mark.parametrize(
    "written",
    [
        result(),
        result(task="relax", energy_sd_eV=float("nan"), status="not converged", trace={}),
        result(energy_eV=float("inf"), status="failed: exploded", trajectory=(), draw=-1),
    ],
    ids=["dynamics", "relax", "failed"],
)
def test_a_result_comes_back_whole(tmp_path, written):
    stem = tmp_path / "Si3C6-f012-d02-300.5K"
    output = write_result(stem, written)
    assert is_intact(output, *result_files(stem))
    assert write_result(stem, written) == output
    back = read_result(stem)
    scalars = ("structure", "draw", "engine", "task", "temperature_K", "status", "seconds")
    for name in scalars:
        assert getattr(back, name) == getattr(written, name)
    np.testing.assert_array_equal(
        [back.energy_eV, back.energy_sd_eV], [written.energy_eV, written.energy_sd_eV]
    )
    assert list(back.trace) == list(written.trace)
    for name, series in written.trace.items():
        np.testing.assert_array_equal(back.trace[name], series)
    assert len(back.trajectory) == len(written.trajectory)
    for b, w in zip(back.trajectory, written.trajectory, strict=True):
        assert_same_atoms(b, w)


def test_a_half_rewritten_result_is_noticed(tmp_path):
    stem = tmp_path / "run"
    write_result(stem, result())
    # What a kill between the files of a second write would leave.
    write_trajectory(result_files(stem)[0], trajectory(2))
    with pytest.raises(StepFailed, match=r"run\.extxyz"):
        read_result(stem)
    result_files(stem)[2].unlink()
    with pytest.raises(BadInput, match=r"run\.json"):
        read_result(stem)


def test_the_table_of_results_has_one_row_per_result_and_its_schema(tmp_path):
    table = results_table(
        [result(), result(draw=-1, energy_sd_eV=float("nan"))], ["trajectories/a.extxyz", "b"]
    )
    assert table.schema == RESULTS_SCHEMA
    assert table["draw"].to_list() == [2, -1]
    assert table["trajectory"][0] == "trajectories/a.extxyz"
    assert table["energy_eV"][0] == -1234.5678901234567
    assert results_table([], []).schema == RESULTS_SCHEMA
    write_table(tmp_path / "simulations.parquet", table)
    assert read_table(tmp_path / "simulations.parquet").equals(table, null_equal=True)


def test_defects_come_back_from_a_file_with_their_atoms(tmp_path):
    kinds = [Vacancy(1), Vacancy(2)]
    table = DefectTable.build(
        frame=0, kinds=kinds, xy=np.zeros((2, 2)), p=[0.9, 0.8], atoms=[[12, 15], []]
    )
    write_table(tmp_path / "defects.parquet", table.data)
    assert pl.read_parquet(tmp_path / "defects.parquet")["atoms"].to_list() == ["12 15", ""]
    back = DefectTable(read_table(tmp_path / "defects.parquet"))
    assert back.data.equals(table.data, null_equal=True)
