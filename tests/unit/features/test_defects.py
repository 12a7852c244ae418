"""Defects are named right in noisy, distorted frames; bonds and rings are found."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from adatom.core import GRAPHENE, Affine, AtomTable, EmptySites, Lattice
from adatom.errors import BadInput
from adatom.features.defects.base import DefectOptions
from adatom.features.defects.bonded_sheet import NAMER
from adatom.features.defects.bonds import REACH, bond_cutoff, bond_graph
from adatom.features.defects.rings import rings
from adatom.features.neighbours import match

EXTENT = (24.0, 24.0)
NOTHING = EmptySites.none()
USUAL = DefectOptions()
BOND = GRAPHENE.bond_length_A


def name_defects(atoms, lattice, empty=NOTHING, options=USUAL, frame=0):
    return NAMER.name_defects(atoms, lattice, GRAPHENE, EXTENT, empty, frame, options)


def make_lattice(rng: np.random.Generator) -> Lattice:
    stretch = np.eye(2) + rng.normal(0.0, 0.015, (2, 2))
    stretch[0, 1] = stretch[1, 0]
    return Lattice(
        material=GRAPHENE,
        center_xy_A=(12.0, 12.0),
        affine=Affine.from_array(stretch),
        bend=rng.normal(0.0, 3e-4, (2, 3)),
        angle_rad=float(rng.uniform(0.0, 1.0)),
        origin_xy_A=(float(rng.normal()), float(rng.normal())),
        rms_A=0.1,
        matched=1.0,
    )


def push(xy, centre, amount):
    """Radial relaxation that dies out with the square of the distance."""
    v = xy - centre
    r = np.hypot(v[:, 0], v[:, 1])[:, None]
    return xy + v / np.maximum(r, 0.1) * amount * np.minimum((1.6 / np.maximum(r, 0.1)) ** 2, 1.0)


def build(kind, lattice):
    """Undistorted atoms with one defect near the middle, and the defect's centre.

    Distances follow the labelled micrographs: Si-C 1.7-1.9, Si-Si 2.2-2.4 in Si3C6 and Si2C6.
    """
    index, _ = lattice.sites_within(EXTENT)
    xy = lattice.site_xy(index)
    middle = lattice.undistort(np.array([[12.0, 12.0]]))
    a = int(np.argmin(np.hypot(*(xy - middle).T)))
    near = np.argsort(np.hypot(*(xy - xy[a]).T))[1:4]
    b, mid, along = int(near[0]), (xy[a] + xy[near[0]]) / 2.0, (xy[near[0]] - xy[a]) / BOND
    across = np.array([-along[1], along[0]])
    gone, silicon, carbon, centre, shove = [], [], [], mid, 0.0
    if kind == "Si1C3":
        gone, silicon, centre, shove = [a], [xy[a]], xy[a], 0.3
    elif kind == "Si1C4":
        gone, silicon = [a, b], [mid]
    elif kind == "Si2C4":
        gone, silicon, shove = [a, b], [xy[a] - 0.3 * along, xy[b] + 0.3 * along], 0.25
    elif kind == "Si2C6":  # two Si between the sites of a chain of four round one hexagon
        hexagon = xy[near[0]] + xy[near[1]] - xy[a]
        ring = np.argsort(np.hypot(*(xy - hexagon).T))[:6]
        ring = ring[np.argsort(np.arctan2(*(xy[ring] - hexagon).T[::-1]))]
        gone = ring[:4].tolist()
        one, two = xy[gone[:2]].mean(axis=0), xy[gone[2:]].mean(axis=0)
        apart = (two - one) / np.hypot(*(two - one))
        silicon, centre = [one - 0.12 * apart, two + 0.12 * apart], (one + two) / 2.0
    elif kind == "Si3C6":  # three Si round an empty site
        gone, centre, shove = [a, *near.tolist()], xy[a], 0.4
        silicon = [xy[a] + 0.9 * (xy[n] - xy[a]) for n in near]
    elif kind in ("V1", "V2", "V3"):
        gone = [a, b, int(near[1])][: int(kind[1])]
        centre = xy[gone].mean(axis=0)
    elif kind == "Stone-Wales":
        gone, carbon = [a, b], [mid + 0.665 * across, mid - 0.665 * across]
    elif kind == "ad-C":
        carbon = [mid]
    elif kind == "ad-Si":
        silicon = [mid]
    kept = push(np.delete(xy, gone, axis=0), centre, shove)
    if kind == "Stone-Wales":  # its four neighbours make room across and close up along
        d = kept - mid
        fade = np.exp(-((np.hypot(*d.T) / 2.6) ** 2))
        side, front = d @ across, d @ along
        kept = kept + np.outer(0.35 * fade * np.sign(side) * (np.abs(side) > 0.5), across)
        kept = kept - np.outer(0.15 * fade * np.sign(front) * (np.abs(front) > 0.5), along)
    xy = np.vstack([kept, *(np.reshape(c, (1, 2)) for c in [*carbon, *silicon])])
    return xy, ["C"] * (len(kept) + len(carbon)) + ["Si"] * len(silicon), centre


def table(measured, elements, sigma, p=0.99, frame=0):
    n = len(measured)
    return AtomTable.build(
        frame=frame,
        xy=measured,
        covariance=np.tile(np.eye(2) * sigma**2, (n, 1, 1)),
        p_exists=np.full(n, p),
        element=elements,
        p_element=np.full(n, 0.99),
        votes=np.ones(n),
        amplitude=np.where(np.array(elements) == "Si", 4.0, 1.0),
    )


def simulate(kind, sigma, rng):
    lattice = make_lattice(rng)
    xy, elements, centre = build(kind, lattice)
    measured = lattice.distort(xy + rng.normal(0.0, sigma, xy.shape))
    inside = ((measured > 0.0) & (measured < EXTENT)).all(axis=1)
    atoms = table(measured[inside], [e for e, i in zip(elements, inside, strict=True) if i], sigma)
    return atoms, lattice, lattice.distort(centre[None])[0]


SILICON = ["Si1C3", "Si1C4", "Si2C4", "Si2C6", "Si3C6"]
KINDS = [*SILICON, "V1", "V2", "V3", "Stone-Wales", "ad-C", "ad-Si"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_is_named_in_clean_and_in_noisy_frames(kind):
    for sigma, least in ((0.05, 6), (0.12, 5)):
        right = 0
        for seed in range(6):
            atoms, lattice, centre = simulate(kind, sigma, np.random.default_rng(seed))
            found = name_defects(atoms, lattice)
            close = found.kinds == [kind] and np.hypot(*(found.xy[0] - centre)) < 0.6
            right += close and 0.3 < found.data["p"][0] <= 1.0
        assert right >= least, (sigma, right)


def test_perfect_graphene_has_no_defects():
    for seed in range(6):
        atoms, lattice, _ = simulate("none", 0.15, np.random.default_rng(seed))
        assert name_defects(atoms, lattice).kinds == []


def test_atoms_of_a_cluster_are_the_foreign_ones_and_then_their_neighbours():
    atoms, lattice, _ = simulate("Si3C6", 0.03, np.random.default_rng(1))
    found = name_defects(atoms, lattice)
    members = found.data["atoms"][0].to_list()
    assert atoms.elements[members].tolist() == ["Si"] * 3 + ["C"] * 6
    si, c = atoms.xy[members[:3]], atoms.xy[members[3:]]
    shortest = np.hypot(*(c[:, None] - si[None]).transpose(2, 0, 1)).min(axis=1)
    assert shortest.max() < 2.2
    assert np.allclose(found.xy[0], si.mean(axis=0))


def test_a_doubtful_element_lowers_p_and_then_drops_the_defect():
    atoms, lattice, _ = simulate("Si1C3", 0.03, np.random.default_rng(2))
    sure = name_defects(atoms, lattice).data["p"][0]
    silicon = atoms.elements == "Si"
    frame = atoms.data.to_dict(as_series=False)
    for value, kinds in ((0.7, ["Si1C3"]), (0.3, [])):
        frame["p_element"] = np.where(silicon, value, 0.99).tolist()
        doubt = AtomTable(type(atoms.data)(frame, schema=atoms.data.schema))
        found = name_defects(doubt, lattice)
        named = [k for k in found.kinds if k.startswith("Si")]
        assert named == kinds
        if kinds:
            assert found.data["p"][0] == pytest.approx(sure * value / 0.99, rel=1e-6)


def test_a_doubtful_atom_nearer_than_any_bond_is_an_alternative():
    atoms, lattice, _ = simulate("Si1C3", 0.03, np.random.default_rng(2))
    (bonded,) = name_defects(atoms, lattice).data["atoms"].to_list()
    silicon, carbon = (atoms.xy[int(n)] for n in bonded[:2])
    for value, told in ((0.4, "Si1C2 0.1"), (0.2, "Si1C2 0.2")):  # three bonds are usual for Si
        p = np.where(np.arange(len(atoms)) == bonded[1], value, 0.99)
        usual = atoms.data.with_columns(pl.Series("p_exists", p))
        named = name_defects(AtomTable(usual), lattice).data
        # First-shell atoms count with their probability, also those that are rather not there.
        assert named["kind"].to_list() == ["Si1C3"]
        assert named["alternatives"][0].startswith(told)
        assert named["p"][0] < 0.9
    near = silicon + 1.0 * (carbon - silicon) / np.hypot(*(carbon - silicon))
    moved = atoms.xy
    moved[bonded[1]] = near
    columns = {"x_A": moved[:, 0], "y_A": moved[:, 1]}
    usual = atoms.data.with_columns(
        p_exists=np.where(np.arange(len(atoms)) == bonded[1], 0.8, 0.99)
    )
    beside = usual.with_columns(**{k: pl.Series(v) for k, v in columns.items()})
    told = name_defects(AtomTable(beside), lattice).data
    assert told["kind"][0] == "Si1C2"


def test_an_atom_beyond_any_bond_is_no_neighbour():
    atoms, lattice, _ = simulate("Si1C4", 0.03, np.random.default_rng(2))
    named = name_defects(atoms, lattice).data
    assert named["kind"].to_list() == ["Si1C4"]
    silicon, carbon = (atoms.xy[int(n)] for n in named["atoms"][0].to_list()[:2])
    far = silicon + 2.5 * (carbon - silicon) / np.hypot(*(carbon - silicon))
    moved = atoms.xy
    moved[named["atoms"][0].to_list()[1]] = far
    columns = {"x_A": moved[:, 0], "y_A": moved[:, 1]}
    apart = atoms.data.with_columns(**{k: pl.Series(v) for k, v in columns.items()})
    assert name_defects(AtomTable(apart), lattice).kinds[0] == "Si1C3"


def test_the_counts_decide_whether_an_unseen_atom_is_a_vacancy():
    atoms, lattice, centre = simulate("V1", 0.05, np.random.default_rng(3))
    _, sites = lattice.sites_within(EXTENT)
    here = np.hypot(*(sites - centre).T) < 0.5
    for p_here, kinds in ((0.97, ["V1"]), (0.2, [])):
        evidence = (sites, np.where(here, p_here, 0.02))
        found = name_defects(atoms, lattice, EmptySites(*evidence))
        assert found.kinds == kinds
        if kinds:
            assert found.data["p"][0] == pytest.approx(p_here)
    assert name_defects(atoms, lattice).data["p"][0] == pytest.approx(0.5)


def test_the_border_is_left_alone():
    atoms, lattice, centre = simulate("Si1C3", 0.03, np.random.default_rng(4))
    wide = DefectOptions(border_A=11.9)
    assert name_defects(atoms, lattice, options=wide).kinds == []
    assert np.hypot(*(centre - 12.0)) < 2.0


@pytest.mark.parametrize("kind", ["Si1C3", "Si3C6", "Stone-Wales"])
def test_without_a_lattice_distances_and_rings_name(kind):
    lattice = Lattice(
        GRAPHENE, (12.0, 12.0), Affine.identity(), np.zeros((2, 3)), 0.3, (0, 0), 0, 1
    )
    xy, elements, _ = build(kind, lattice)
    atoms = table(
        lattice.distort(xy + np.random.default_rng(5).normal(0, 0.03, xy.shape)), elements, 0.03
    )
    assert kind in name_defects(atoms, None).kinds


def test_two_frames_or_bad_evidence_are_refused():
    atoms, lattice, _ = simulate("V1", 0.05, np.random.default_rng(6))
    second = table(atoms.xy, atoms.elements.tolist(), 0.05, frame=1)
    with pytest.raises(BadInput, match="one frame"):
        name_defects(AtomTable.concat([atoms, second]), lattice)
    with pytest.raises(BadInput, match="one frame"):
        name_defects(atoms, lattice, frame=1)
    with pytest.raises(BadInput, match="empty sites"):
        EmptySites(np.zeros((3, 2)), np.zeros(2))


def test_bonds_and_rings_of_graphene_are_hexagons():
    lattice = make_lattice(np.random.default_rng(7))
    xy, elements, _ = build("none", lattice)
    for coordination in (None, 3):
        graph = bond_graph(xy, elements, coordination=coordination)
        assert np.allclose(graph.lengths(), BOND, atol=1e-9)
        assert graph.coordination().max() == 3
        found = rings(graph)
        assert {len(r) for r in found} == {6}
        # Euler: faces without the outside = bonds - atoms + 1, for atoms that lie on rings.
        on = np.unique(np.concatenate(found))
        inner = np.isin(graph.bonds, on).all(axis=1).sum()
        assert abs(len(found) - (inner - len(on) + 1)) <= 2
    assert 1.42 < bond_cutoff("C", "C") < 2.46
    assert 1.75 < bond_cutoff("Si", "C") < bond_cutoff("Si", "Si") < 2.8
    with pytest.raises(BadInput, match="chemical symbol"):
        bond_cutoff("C", "silicon")


def test_a_turned_bond_makes_two_pentagons_and_two_heptagons():
    lattice = make_lattice(np.random.default_rng(8))
    xy, elements, centre = build("Stone-Wales", lattice)
    found = rings(bond_graph(xy, elements, coordination=3, host="C"))
    odd = [r for r in found if len(r) != 6]
    assert sorted(len(r) for r in odd) == [5, 5, 7, 7]
    assert all(np.hypot(*(xy[list(r)].mean(axis=0) - centre)) < 3.0 for r in odd)


def test_matching_is_one_to_one_and_best_in_total():
    a = np.array([[0.0, 0.0], [0.6, 0.0], [5.0, 0.0]])
    b = np.array([[0.5, 0.0], [1.1, 0.0], [9.0, 0.0]])
    assert match(a, b, 0.75).tolist() == [0, 1, -1]
    assert match(a, np.zeros((0, 2)), 0.75).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("seed", range(6))
def test_uncontested_pairs_change_no_bond(seed):
    # The rule itself, one pair after the other in the order of their lengths.
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0.0, 14.0, (90, 2))
    found = bond_graph(xy, ["C"] * len(xy), coordination=3, host="C")
    distance = np.linalg.norm(xy[:, None] - xy, axis=2)
    reach = bond_cutoff("C", "C") * REACH
    pairs = [(distance[a, b], a, b) for a in range(90) for b in range(a + 1, 90)]
    bonded: list[set[int]] = [set() for _ in xy]
    for length, a, b in sorted(pairs):
        free = len(bonded[a]) < 3 and len(bonded[b]) < 3
        if length <= reach and free and not bonded[a] & bonded[b]:
            bonded[a].add(b)
            bonded[b].add(a)
    assert {(a, b) for a, near in enumerate(bonded) for b in near if a < b} == {
        (int(a), int(b)) for a, b in found.bonds
    }


def test_a_chain_and_a_ring_of_nine_are_no_hexagons():
    angle = np.arange(9) * 2 * np.pi / 9
    ring = 2.1 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    tail = np.array([[3.5, 0.0], [4.9, 0.0]])
    graph = bond_graph(np.concatenate([ring, tail]), ["C"] * 11)
    assert rings(graph) == (tuple(range(9)),)
    assert rings(graph, largest=8) == ()
