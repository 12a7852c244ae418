"""Small inputs of the kinds in public bug reports: right from Python and from the command line."""

import json
import warnings

import ase.io
import numpy as np
import polars as pl
import pytest
from scipy.spatial import cKDTree

import adatom as ad
from small import adatom

pytestmark = [pytest.mark.slow, pytest.mark.realdata]
# File; likely atoms by the truth, in all frames; defects of both faces; words of a warning.
CASES = [
    ("base_ok.npz", 273, {"Si1C3": 2, "V1": 2}, ""),
    ("offset_minus3000.npz", 273, {"Si1C3": 2, "V1": 2}, ""),
    ("scale_5pc_wrong.npz", 273, {"Si1C3": 2, "V1": 2}, "0.126 Å, and a graphene lattice"),
    ("chiral.npz", 220, {"Si1C3": 2, "V1": 1}, ""),
    ("half_frame.npz", 1172, {"Si1C3": 9, "V1": 5}, "masked, because it is no specimen"),
    ("noise_frame.npz", 1085, {"Si1C3": 9, "V1": 5}, "hardly an atom is sure in 1 of 6 frames"),
    ("duplicate_frame.npz", 1301, {"Si1C3": 11, "V1": 6}, ""),
    ("drift_0.5.npz", 1303, {"Si1C3": 11, "V1": 6}, ""),
    ("drift_corrected_zero_filled.tif", 972, {"Si1C3": 4, "V1": 4}, "masked"),
]


@pytest.fixture(scope="module")
def cases(shared_data):
    path = shared_data.parent / "cases"
    if not path.is_dir():
        pytest.skip("the small inputs of ../shared/cases are not here")
    return path


@pytest.mark.parametrize(("name", "atoms", "kinds", "words"), CASES)
def test_both_faces_give_the_right_answer(cases, name, atoms, kinds, words, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = ad.find(cases / name, material="graphene")
        defects = ad.find_defects(cases / name, found, material="graphene")
    assert abs(int(found.is_likely.sum()) - atoms) <= 0.01 * atoms
    counts = dict(defects.data["kind"].value_counts().iter_rows())
    assert {kind: counts.get(kind, 0) for kind in kinds} == kinds
    assert words in " ".join(str(one.message) for one in caught)
    done = adatom("find", cases / name, "-m", "graphene", "--adapt", "never", "--json", "-o",
                  tmp_path / "out")  # fmt: skip
    summary = json.loads(done.stdout)
    assert words in " ".join(summary["warnings"])
    assert {k: n for k, n in summary["defect_frames"].items() if k in kinds} == kinds
    table = pl.read_parquet(tmp_path / "out" / "atoms.parquet").sort("frame", "atom")
    same = found.data.sort("frame", "atom")
    for column in ("x_A", "y_A", "p_exists"):
        np.testing.assert_allclose(table[column], same[column], rtol=1e-6, atol=1e-6)


def test_positions_of_the_plain_case_are_the_true_ones(cases):
    with np.load(cases / "base_truth.npz", allow_pickle=False) as truth:
        xy = truth["xy"]
    found = ad.find(cases / "base_ok.npz", material="graphene")
    near = cKDTree(xy).query(found.xy[found.is_likely])[0]
    assert np.median(near) < 0.05
    assert near.max() < 0.3


def test_what_drifts_in_has_come_into_the_field(cases, tmp_path):
    adatom("find", cases / "drift_0.5.npz", "-m", "graphene", "--adapt", "never", "-o",
           tmp_path / "out")  # fmt: skip
    defects = pl.read_parquet(tmp_path / "out" / "defects.parquet")
    late = defects.filter((pl.col("kind") == "Si1C3") & (pl.col("first_frame") > 0))
    assert len(late)
    assert set(late["origin"]) == {"came into the field"}


def test_fixed_atoms_stay_where_they_are(cases, tmp_path):
    """The file's constraint holds through relaxation and dynamics, or the structure is refused."""
    atoms = ase.io.read(cases / "FixAtoms8.extxyz")
    (fixed,) = (c.index for c in atoms.constraints)
    options = {"relax_engine": "lammps", "dynamics_engine": "lammps"}
    results = ad.simulate([atoms], material="graphene", temperatures_K=[300], **options)
    assert [r.task for r in results] == ["relax", "dynamics"]
    for result in results:
        assert result.status == "done"
        first, last = result.trajectory[0], result.trajectory[-1]
        moved = np.linalg.norm(last.positions - first.positions, axis=1)
        assert moved[fixed].max() < 1e-6
        assert np.delete(moved, fixed).max() > 1e-3
