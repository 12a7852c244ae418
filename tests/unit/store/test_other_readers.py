"""Extended XYZ files of odd structures, read by the programs that people use."""

import ase
import numpy as np
import pytest
from ase.build import graphene
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from adatom.core import Structure
from adatom.store import read_structures, read_trajectory, write_structures, write_trajectory

ODD_NAMES = (
    "a,b", "x=1", "[1, 2]", "Si=C,[3]", "{}", 'quote"d', "it's", "back\\slash", "", " ", "5,7",
    "T", "007", "1e5", "nan", "_JSON 1", "Lattice=", 'pbc="F F F"', "new\nline", "é", "%41", "#",
)  # fmt: skip


def sheet() -> ase.Atoms:
    atoms = graphene(size=(2, 2, 1), a=2.46, vacuum=5.0)
    atoms.pbc = (True, True, False)
    atoms.symbols[3] = "Si"
    return atoms


def odd() -> ase.Atoms:
    """A sheet with everything that other readers of the format stumble over."""
    atoms = sheet()
    atoms.info.update(
        {f"name{i}": text for i, text in enumerate(ODD_NAMES)}
        | {
            "rings 5-7": "a key with a space", "a=b": 1, "c,d": [1, 2], "0": "digit", "": "empty",
            "table": {"a": {"b": [1, 2.5, None]}}, "list": ["x", 3], "none": None,
            "nan": float("nan"), "large": 2**40, "matrix": np.eye(2), "cube": np.zeros((2, 2, 2)),
            "text": "word " * 300 + "end", "series": np.arange(60.0),
            "few": np.array([1.5]), "pair": np.array([1.5, 2.5]), "count": 3, "sure": True,
        }
    )  # fmt: skip
    atoms.set_array("covariance", np.arange(32.0).reshape(8, 2, 2))
    atoms.set_array("label", np.array(["a", "a long one", "", "x=1", "a,b", '"', "%", "é"]))
    atoms.set_array("word", np.array(["C", "C", "C", "silicon", "C", "C", "C", "C"]))
    atoms.set_array("votes 2", np.arange(8))
    atoms.set_array("species", np.arange(8.0))
    atoms.set_array("seen", np.arange(8) % 2 == 0)
    atoms.set_constraint(FixAtoms([1, 4]))
    atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=np.full((8, 3), 0.25))
    return atoms


@pytest.fixture
def path(tmp_path):
    out = tmp_path / "odd.extxyz"
    write_trajectory(out, [odd(), odd()])
    return out


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.shape == b.shape and bool(np.all(a == b))
    return a == b or (a != a and b != b)


def test_everything_comes_back(path):
    for back in read_trajectory(path):
        want = odd()
        assert set(back.info) == set(want.info)
        assert [k for k in want.info if not same(back.info[k], want.info[k])] == []
        assert set(back.arrays) == set(want.arrays)
        for name, values in want.arrays.items():
            assert back.arrays[name].shape == values.shape
            if values.dtype.kind == "U":
                assert back.arrays[name].tolist() == values.tolist()
            else:
                np.testing.assert_allclose(back.arrays[name], values, atol=1e-7)
        assert back.constraints[0].get_indices().tolist() == [1, 4]
        assert back.get_potential_energy() == -1.5


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_structure_of_any_name_comes_back(tmp_path, name):
    atoms = sheet()
    atoms.info["name"] = atoms.info["kind"] = name
    write_structures(tmp_path / "s.extxyz", [Structure.from_ase(atoms)])
    (back,) = read_structures(tmp_path / "s.extxyz")
    assert (back.name, back.kind) == (name, name)


def test_ase_alone_reads_cell_and_columns(path):
    last = ase.io.read(path, index=-1)
    np.testing.assert_array_equal(last.cell.array, sheet().cell.array)
    assert last.pbc.tolist() == [True, True, False]
    assert last.arrays["word"][3] == "silicon"
    assert last.arrays["label"][1] == "a%20long%20one"
    assert last.arrays["covariance"].shape == (8, 4)
    assert (last.info["count"], last.info["pair"].tolist()) == (3, [1.5, 2.5])


@pytest.mark.parametrize("in_c", [False, True])
def test_libatoms_parsers_read_cell_and_columns(path, in_c):
    extxyz = pytest.importorskip("extxyz", reason="libAtoms' parser is not installed")
    frames = extxyz.read_dicts(str(path), use_cextxyz=in_c)
    assert len(frames) == 2
    for frame in frames:
        np.testing.assert_allclose(frame.cell.T, sheet().cell.array)  # vectors as columns
        np.testing.assert_allclose(frame.arrays["pos"], sheet().positions, atol=1e-7)
        assert list(frame.arrays["species"]) == sheet().get_chemical_symbols()
        assert frame.info["count"] == 3
        assert frame.arrays["word"][3] == "silicon"


def test_chemfiles_reads_cell_and_columns(path):
    chemfiles = pytest.importorskip("chemfiles", reason="chemfiles is not installed")
    with chemfiles.Trajectory(str(path), "r", "XYZ") as trajectory:
        assert trajectory.nsteps == 2
        for _ in range(2):
            frame = trajectory.read()
            np.testing.assert_allclose(frame.cell.matrix.T, sheet().cell.array, atol=1e-6)
            np.testing.assert_allclose(frame.positions, sheet().positions, atol=1e-7)
            assert frame.atoms[3].name == "Si"
            assert frame.atoms[3]["word"] == "silicon"
            assert str(frame["count"]) == "3"


def test_ovito_reads_cell_and_columns(path):
    ovito_io = pytest.importorskip("ovito.io", reason="OVITO is not installed")
    pipeline = ovito_io.import_file(str(path))
    assert pipeline.source.num_frames == 2
    data = pipeline.compute(1)
    np.testing.assert_allclose(data.cell[:, :3].T, sheet().cell.array, atol=1e-6)
    assert data.cell.pbc == (True, True, False)
    np.testing.assert_allclose(data.particles.positions, sheet().positions, atol=1e-6)
    assert data.particles["covariance"].shape == (8, 4)
    assert data.attributes["count"] == 3
