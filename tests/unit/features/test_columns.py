"""Point defects of crystals that are not graphene, on exact positions."""

from dataclasses import replace

import numpy as np

from adatom.core import AtomTable, EmptySites, Substitution, Vacancy
from adatom.features.defects.base import DefectOptions
from adatom.features.defects.columns import NAMER
from adatom.frames.lattice.fit import fit_lattice
from adatom.frames.simulate.specimen import lattice_sites
from adatom.materials.library import load_material

MOS2 = load_material("MoS2")


def table(xy, elements, p=1.0, material=MOS2):
    n = len(xy)
    bright = dict(zip(material.species, material.brightness(), strict=True))
    return AtomTable.build(
        frame=3, xy=xy, covariance=np.tile(np.eye(2) * 1e-4, (n, 1, 1)), p_exists=np.full(n, p),
        element=elements, p_element=np.ones(n), votes=np.ones(n),
        amplitude=np.array([bright[e] for e in elements]),
    )  # fmt: skip


NOTHING = EmptySites.none()


def name_defects(atoms, lattice, empty=NOTHING, material=MOS2):
    return NAMER.name_defects(atoms, lattice, material, (30.0, 30.0), empty, 3, DefectOptions())


def sheet(angle=0.37):
    xy, site = lattice_sites(MOS2, (30.0, 30.0), 0.0, angle)
    return xy, np.array(MOS2.site_species)[site].astype(object)


def lattice_of(xy, names):
    host = names == MOS2.host
    return fit_lattice(xy[host], MOS2, others_xy=xy[~host])


def test_every_site_is_what_stands_there_however_the_sheet_lies():
    """The Mo sites alone look the same after half a turn; the whole sheet does not."""
    for angle in np.linspace(0.0, 6.0, 13):
        xy, names = sheet(angle)
        lattice = lattice_of(xy, names)
        index, offset = lattice.nearest_site(lattice.undistort(xy))
        due = np.array(MOS2.site_species)[index[:, 2]]
        assert (due == names).all()
        assert np.linalg.norm(offset, axis=1).max() < 0.1


def test_a_perfect_sheet_has_none():
    for angle in (0.1, 1.3, 2.2, 4.0):
        xy, names = sheet(angle)
        assert len(name_defects(table(xy, names), lattice_of(xy, names))) == 0


def test_each_kind_is_named_where_it_lies():
    xy, names = sheet()
    lattice = lattice_of(xy, names)
    inner = np.flatnonzero(np.all((xy > 6) & (xy < 24), axis=1))
    metal, *_, gone = (i for i in inner if names[i] == "Mo")
    sulphur = next(i for i in inner[::-1] if names[i] == "S2")
    names[metal], names[sulphur] = "W", "S"
    between = xy[gone] + 0.5 * (xy[sulphur] - xy[gone]) / np.linalg.norm(xy[sulphur] - xy[gone])
    kept = np.arange(len(xy)) != gone
    more = np.concatenate([xy[kept], [between + [0.4, 0.4]]])
    atoms = table(more, [*names[kept], "V"])
    found = name_defects(atoms, lattice, EmptySites(xy[[gone]], np.array([0.8])))
    kinds = dict(zip(found.kinds, found.xy, strict=True))
    assert set(kinds) == {"vac_Mo", "W_Mo", "S_S2", "ad-V"}
    np.testing.assert_allclose(kinds["vac_Mo"], xy[gone])
    np.testing.assert_allclose(kinds["W_Mo"], xy[metal])
    np.testing.assert_allclose(kinds["S_S2"], xy[sulphur])
    rows = {r["kind"]: r for r in found.data.iter_rows(named=True)}
    assert rows["vac_Mo"]["p"] == 0.8
    assert rows["W_Mo"]["atoms"] == [int(np.flatnonzero(atoms.elements == "W")[0])]
    assert set(found.data["frame"]) == {3}


def test_vanadium_on_a_site_and_a_missing_atom_are_two_kinds():
    xy, names = sheet()
    lattice = lattice_of(xy, names)
    inner = np.flatnonzero(np.all((xy > 6) & (xy < 24), axis=1) & (names == "Mo"))
    vanadium, gone = inner[0], inner[-1]
    names[vanadium] = "V"
    kept = np.arange(len(xy)) != gone
    found = name_defects(table(xy[kept], names[kept]), lattice, EmptySites(xy[[gone]], np.ones(1)))
    where = dict(zip(found.kind_values, found.xy, strict=True))
    assert set(where) == {Substitution("V", "Mo"), Vacancy.at("Mo")}
    np.testing.assert_allclose(where[Substitution("V", "Mo")], xy[vanadium])
    np.testing.assert_allclose(where[Vacancy.at("Mo")], xy[gone])
    assert len(set(found.kinds)) == 2


def test_what_is_hardly_there_is_not_listed():
    xy, names = sheet()
    lattice = lattice_of(xy, names)
    doubtful = table(np.array([[15.0, 15.0]]), ["W"], p=0.01)
    assert len(name_defects(doubtful, lattice, EmptySites(xy[:1], np.array([0.01])))) == 0


def test_without_a_lattice_only_empty_sites_are_named():
    empty = EmptySites(np.array([[4.0, 5.0]]), np.array([0.6]))
    found = name_defects(table(np.array([[1.0, 2.0]]), ["W"]), None, empty)
    assert found.kind_values == [Vacancy(1)]


def test_where_stackings_change_no_host_is_out_of_place():
    plain = replace(MOS2, polytypes=())
    xy, names = sheet()
    inner = next(
        i for i in np.flatnonzero(np.all((xy > 8) & (xy < 20), axis=1)) if names[i] == "Mo"
    )
    lattice = lattice_of(xy, names)
    names[inner] = "S2"
    antisite = name_defects(
        table(xy, names, material=plain), replace(lattice, material=plain), material=plain
    )
    assert antisite.kinds == ["anti_S2_Mo"]
    assert len(name_defects(table(xy, names), lattice)) == 0


def test_a_second_grain_is_not_full_of_defects():
    """Its sites are not those of the lattice that fits the first grain."""
    cdte = load_material("CdTe")
    parts = [lattice_sites(cdte, (45.0, 60.0), 0.0, angle) for angle in (0.2, 1.1)]
    xy = np.concatenate([parts[0][0], parts[1][0] + [46.0, 0.0]])
    site = np.concatenate([s for _, s in parts])
    names = np.array(cdte.site_species)[site].astype(object)
    first = np.arange(len(xy)) < len(parts[0][0])
    lattice = fit_lattice(xy[first & (names == "Te")], cdte, others_xy=xy[first & (names == "Cd")])
    assert len(name_defects(table(xy, names, material=cdte), lattice, material=cdte)) == 0
    wrong = [int(np.argmin(np.linalg.norm(xy - at, axis=1))) for at in ([20, 30], [70, 30])]
    other = {"Cd": "Te", "Te": "Cd"}
    kinds = sorted(f"anti_{other[names[i]]}_{names[i]}" for i in wrong)
    names[wrong] = [other[names[i]] for i in wrong]
    found = name_defects(table(xy, names, material=cdte), lattice, material=cdte)
    assert sorted(found.kinds) == kinds


def test_a_column_as_bright_as_its_sublattice_is_no_antisite():
    cdte, rng = load_material("CdTe"), np.random.default_rng(4)
    xy, site = lattice_sites(cdte, (45.0, 60.0), 0.0, 0.2)
    names = np.array(cdte.site_species)[site].astype(object)
    lattice = fit_lattice(xy[names == "Te"], cdte, others_xy=xy[names == "Cd"])
    right = table(xy, names, material=cdte)
    bright = right.column("amplitude") * rng.normal(1.0, 0.03, len(xy))
    at = next(i for i in np.argsort(np.linalg.norm(xy - [22, 30], axis=1)) if names[i] == "Cd")
    names[at] = "Te"
    wrong = table(xy, names, material=cdte).data
    for amplitude, kinds in ((bright[at], []), (1.0, ["anti_Te_Cd"])):
        seen = np.where(np.arange(len(xy)) == at, amplitude, bright)
        atoms = AtomTable(wrong.with_columns(amplitude=seen))
        assert name_defects(atoms, lattice, material=cdte).kinds == kinds


def test_a_foreign_column_between_the_sites_of_a_thick_crystal_is_an_interstitial():
    gold = replace(load_material("Au"), species=("Au", "Pt"))
    xy, _ = lattice_sites(gold, (30.0, 30.0), 0.0, 0.2)
    lattice = fit_lattice(xy, gold)
    middle = xy[np.argmin(np.linalg.norm(xy - 15.0, axis=1))]
    at = middle + lattice.vectors().sum(axis=0) / 2.0 + [0.2, 0.0]
    assert np.linalg.norm(lattice.nearest_site(lattice.undistort(at[None]))[1]) > 1.0
    atoms = table(np.concatenate([xy, [at]]), ["Au"] * len(xy) + ["Pt"], material=gold)
    found = name_defects(atoms, lattice, material=gold)
    assert found.kinds == ["Pt_i"]
    np.testing.assert_allclose(found.xy[0], at)
