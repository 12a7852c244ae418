"""What became of the defects: hops, minima, and bonds in the simulations."""

from __future__ import annotations

from dataclasses import replace

import ase.build
import numpy as np
import polars as pl
import pytest

from adatom.core import GRAPHENE, DefectTable, SimulationResult
from adatom.report import facts, fates, stories, words
from adatom.report.simulation_sections import structures
from views import lattice_xy, make_defects, make_view


def run_of(path, kelvin=900.0):
    """A run of dynamics with a geometry every 0.1 ps."""
    for k, atoms in enumerate(path):
        atoms.info["time_fs"] = 100.0 * k
    return SimulationResult("A", 0, "lammps", "dynamics", kelvin, -1.0, 0.1, "done", 1.0,
                            trajectory=tuple(path))  # fmt: skip


def sheet(gap: float = 2.46):
    """Graphene with one atom missing; `gap` is the distance of two of its neighbours, Å."""
    atoms = ase.build.graphene(formula="C2", size=(4, 4, 1), vacuum=6.0)
    atoms.pbc = True
    near = np.argsort(atoms.get_distances(12, range(32), mic=True))[1:4]
    a, b = (int(n) for n in near[:2])
    line = atoms.get_distance(a, b, mic=True, vector=True)
    shift = (np.linalg.norm(line) - gap) / 2 * line / np.linalg.norm(line)
    atoms.positions[a] += shift
    atoms.positions[b] -= shift
    del atoms[12]
    return atoms


def test_hops_of_a_track_are_told_with_their_rate():
    rows = make_defects(6).data.with_columns(hops=pl.Series([0, 0, 1, 1, 1, 2], dtype=pl.Int32))
    (track,) = facts.tracks(DefectTable(rows))
    motion = fates.motion_of(track)
    assert (motion.hops, motion.steps, motion.hop_frames) == (2, 5, (2, 5))
    low, high = motion.rate_interval
    assert low < 2 / 5 < high
    told = stories.deeds(make_view(defects=DefectTable(rows)), stories.stories(
        make_view(defects=DefectTable(rows)))[0])  # fmt: skip
    assert "hopped twice in 5 steps (frame 2 and 5): 0.40 a step" in told
    (unknown,) = facts.tracks(make_defects(6))
    assert fates.motion_of(unknown) is None


@pytest.mark.parametrize(
    ("energies", "expected"),
    [
        ([-3393.0983, -3393.0991, -3393.0980, -3392.7444], [3, 1]),
        ([-3404.37494, -3404.37471, -3404.37472, -3404.37458], [4]),
        ([-1.0, -1.2], [1, 1]),
        ([-1.0], [1]),
        ([-10.0, -9.9, -9.8, -9.7, -9.6], [5]),
    ],
)
def test_energies_that_lie_apart_are_minima_of_their_own(energies, expected):
    assert [m.draws for m in fates.minima(energies)] == expected


def test_a_run_that_keeps_its_bonds_survives():
    rng = np.random.default_rng(0)
    path = []
    for _ in range(12):
        atoms = sheet()
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        path.append(atoms)
    fate = fates.run_fate(run_of(path))
    assert fate.survived
    assert not fate.healed
    assert fates.events_in_words([fate, fate]) == "keeps its bonds in 2 of 2 runs"
    assert [t for t, _ in fate.snapshots] == pytest.approx([0.0, 0.6, 1.1])


def test_a_bond_that_forms_for_good_is_an_event_and_a_passing_one_is_not():
    formed = fates.run_fate(run_of([sheet()] * 5 + [sheet(1.6) for _ in range(7)]))
    (event,) = formed.events
    assert event.formed
    assert fates.events_in_words([formed]) == "a C–C bond forms in 1 of 1"
    passing = fates.run_fate(run_of([sheet(), sheet(1.6), *(sheet() for _ in range(8))]))
    assert passing.survived


def test_a_sheet_whose_atoms_all_have_three_bonds_at_the_end_has_healed():
    whole = ase.build.graphene(formula="C2", size=(4, 4, 1), vacuum=6.0)
    whole.pbc = True
    open_ = whole.copy()
    open_.positions[12, 2] += 2.5  # lifted out of its site
    fate = fates.run_fate(run_of([open_.copy(), open_.copy(), *(whole.copy() for _ in range(8))]))
    assert fate.healed
    assert "heals in 1 of 1" in fates.events_in_words([fate])


def test_a_supercell_says_which_defects_of_the_frame_it_holds():
    view = make_view()
    rows = view.defects.data
    near = rows.filter(pl.col("frame") == 0).with_columns(
        defect=pl.lit(1, pl.Int32), kind=pl.lit("V1"), x_A=pl.col("x_A") + 2.0
    )
    view = make_view(defects=DefectTable(pl.concat([rows, near])))
    distance = np.linalg.norm(lattice_xy() - (5.0, 6.0), axis=1)
    for reach, held in ((1.8, ["Si1C3"]), (3.5, ["Si1C3", "V1"])):
        sources = np.flatnonzero(distance < reach).tolist()
        found = fates.held_defects(view, 0, 0, [*sources, -1])
        assert [r["kind"] for r in found] == held


def test_numbers_are_cut_where_their_uncertainty_begins():
    assert words.measured(0.70869, 0.1719) == "0.71 ± 0.17"
    assert words.measured(-3393.01, 0.177, "eV") == "−3393.01 ± 0.18 eV"
    assert words.energy_difference(0.0004) == "less than 1 meV"
    assert words.probability(1.0) == "p > 0.99"
    assert "0.00" not in words.energy_difference(0.004)


def test_kinds_are_named_as_one_says_them():
    said = {n: words.kind_in_words(n, GRAPHENE) for n in ("Si1C4", "V2", "ad-Si", "Stone-Wales")}
    assert said == {
        "Si1C4": "silicon in the carbon sheet, four bonds",
        "V2": "two neighbouring carbon atoms missing",
        "ad-Si": "silicon on top of the crystal",
        "Stone-Wales": "a bond rotated by 90 degrees",
    }


def test_the_page_tells_the_formation_energy_and_its_reference():
    view = make_view()
    told = [
        replace(r, formation_energy_eV=7.9034 + k, reference="μ(C) = -57.8 eV")
        if r.task == "relax" else r
        for k, r in enumerate(view.results)
    ]  # fmt: skip
    view = replace(view, results=told)
    (story, *_) = (s for s in stories.stories(view) if s.simulated is not None)
    text = dict(stories.verdicts(story))["Relaxed"]
    assert "formation energy 8.90 eV" in text  # of the draws: draw -1 is none
    assert "Reference of the formation energy: μ(C) = -57.8 eV." in structures(view, [story])
    bare = make_view()
    (story, *_) = (s for s in stories.stories(bare) if s.simulated is not None)
    assert "ormation energy" not in dict(stories.verdicts(story))["Relaxed"]


def test_the_lowest_draw_is_one_of_the_commonest_composition():
    """A draw with one atom more has a lower total energy, which says nothing."""
    view = make_view()
    odd = view.results[-3]  # the last draw: now with one Si more, and far below
    assert (odd.task, odd.draw) == ("relax", 3)
    atoms = odd.trajectory[-1].copy()
    atoms.symbols[0] = "Si"
    changed = replace(odd, energy_eV=-500.0, trajectory=(*odd.trajectory[:-1], atoms))
    view = replace(view, results=[changed if r is odd else r for r in view.results])
    (story, *_) = (s for s in stories.stories(view) if s.simulated is not None)
    assert story.simulated.lowest.draw == 0


def test_the_card_tells_the_energy_with_its_whole_spread():
    """That draws end within 1 meV says nothing of the engine and of the cell."""
    view = make_view()
    told = [
        replace(r, formation_energy_eV=7.76, draws_sd_eV=0.0, engine_sd_eV=0.10, size_sd_eV=0.24)
        if r.task == "relax" else r
        for r in view.results
    ]  # fmt: skip
    (story, *_) = (
        s for s in stories.stories(replace(view, results=told)) if s.simulated is not None
    )
    assert "formation energy 7.8 ± 0.3 eV" in dict(stories.verdicts(story))["Relaxed"]


def test_atoms_of_a_compound_are_no_impurities_out_of_the_plane():
    layers = ase.build.mx2("MoS2", size=(4, 4, 1), vacuum=8.0)
    del layers[[1, 2, 4]]
    assert not facts.guest_elements(layers)
    assert not facts.is_flat(layers)
    layers.symbols[0] = "V"
    assert facts.guest_elements(layers) == {"V"}
    sheet = ase.build.graphene(size=(4, 4, 1), vacuum=8.0)
    sheet.symbols[3] = "Si"
    sheet.positions[3, 2] += 1.5
    assert facts.guest_elements(sheet) == {"Si"}
    assert facts.is_flat(sheet)
