"""Draws that explain the frame weigh more, on simulated frames of known atoms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adatom.core import GRAPHENE
from adatom.core.atoms import AtomTable
from adatom.features.refinement.likelihood import LocalLikelihood, likelihood_near
from adatom.features.refinement.refine import refine
from adatom.frames.lattice.fit import fit_lattice
from adatom.structures import SupercellOptions, effective_size, sample_structures
from adatom.structures.weights import EXCLUDED, importance_weights
from sheets import graphene_frame

RADIUS_A = SupercellOptions().defect_radius_A


class Seen:
    """A simulated frame with a Si and a table of its atoms whose probabilities the test sets."""

    def __init__(self, seed, counts=20.0, **conditions):
        self.truth = graphene_frame(seed, px=0.14, counts=counts, silicon=[(9, 9)], **conditions)
        xy = self.truth.xy
        frame = self.truth.frame
        self.extent = frame.calibration.extent_xy(frame.shape)
        inside = np.all((xy > 0) & (xy < np.asarray(self.extent)), axis=1)
        self.xy = xy[inside]
        self.elements = np.array(GRAPHENE.species)[self.truth.species[inside]]
        self.silicon = int(np.flatnonzero(self.elements == "Si")[0])
        self.center = tuple(self.xy[self.silicon])
        self.near = np.argsort(np.linalg.norm(self.xy - self.center, axis=1))
        refined = refine(frame, self.xy)
        self.positions, self.covariance = refined.xy, refined.covariance
        self.amplitude = refined.amplitude
        self.lattice = fit_lattice(self.positions[self.elements == "C"], GRAPHENE)

    def table(self, p=None, p_element=None, elements=None):
        n = len(self.xy)
        return AtomTable.build(
            frame=0, xy=self.positions, covariance=self.covariance,
            p_exists=np.ones(n) if p is None else p,
            element=list(self.elements if elements is None else elements),
            p_element=np.ones(n) if p_element is None else p_element,
            votes=np.ones(n), amplitude=self.amplitude,
        )  # fmt: skip

    def likelihood(self, table, material=GRAPHENE):
        found = likelihood_near(self.truth.frame, table, self.center, RADIUS_A + 1.0, material)
        assert found is not None
        return found

    def draws(self, table, count, seed=0, explain=None):
        return sample_structures(
            table, self.lattice, self.extent, center_xy_A=self.center, kind="Si1C3", frame=0,
            defect=0, count=count, rng=np.random.default_rng(seed),
            explain=explain or self.likelihood(table).log_likelihood,
        )  # fmt: skip

    def unsure(self):
        """A table that is unsure of four atoms, and right about the others."""
        p, p_element = np.ones(len(self.xy)), np.ones(len(self.xy))
        p[self.near[[1, 4]]] = 0.6
        p_element[self.near[[0, 2]]] = 0.6
        return self.table(p, p_element)

    def wrong(self, structure):
        """Number of atoms near the defect that are missing or of the wrong element."""
        symbols = np.array(structure.atoms.get_chemical_symbols())
        at = {int(n): s for n, s in zip(structure.source_atom, symbols, strict=True) if n >= 0}
        return sum(at.get(int(i), "") != self.elements[i] for i in self.near[:6])


def test_weighted_draws_are_nearer_to_the_truth():
    plain, weighted = [], []
    for seed in range(4):
        seen = Seen(700 + seed, counts=(3.0, 20.0)[seed % 2])
        draws = seen.draws(seen.unsure(), 24, seed)
        errors = np.array([seen.wrong(d) for d in draws])
        weights = [d.atoms.info["weight"] for d in draws]
        assert sum(weights) == pytest.approx(1.0)
        plain.append(errors.mean())
        weighted.append(errors @ weights)
    assert np.mean(plain) > 1.0
    assert np.mean(weighted) < 0.1 * np.mean(plain)


@pytest.mark.parametrize("counts", [3.0, 30.0])
def test_a_wrong_element_or_a_missing_atom_weighs_nothing(counts):
    seen = Seen(710, counts=counts)
    # As where the angles of the detector are given: else the brightness of Si is hardly known.
    known = replace(GRAPHENE, contrast_range=(1.57, 1.71))
    likelihood = seen.likelihood(seen.table(), known)
    exists = np.ones(len(seen.xy), dtype=bool)
    carbon = seen.elements.copy()
    carbon[seen.silicon] = "C"
    foreign = seen.elements.copy()
    foreign[seen.near[1]] = "Si"
    missing = exists.copy()
    missing[seen.near[1]] = False
    weights = importance_weights([
        likelihood.log_likelihood(exists, seen.elements),
        likelihood.log_likelihood(exists, carbon),
        likelihood.log_likelihood(exists, foreign),
        likelihood.log_likelihood(missing, seen.elements),
    ])  # fmt: skip
    assert weights[0] > 0.999
    assert (weights[1:] < EXCLUDED).all(), weights


def test_draws_of_the_same_atoms_have_the_same_weight():
    seen = Seen(720)
    sure = [d.atoms.info["weight"] for d in seen.draws(seen.table(), 5)]
    np.testing.assert_allclose(sure, 0.2, rtol=1e-9)
    assert effective_size(sure) == pytest.approx(5.0)
    draws = seen.draws(seen.unsure(), 40)
    by_atoms = {}
    for d in draws:
        atoms = tuple(zip(d.source_atom.tolist(), d.atoms.symbols, strict=True))
        by_atoms.setdefault(frozenset(atoms), []).append(d.atoms.info["weight"])
    repeated = [w for w in by_atoms.values() if len(w) > 1]
    assert len(repeated) > 3
    assert len(by_atoms) > 3
    assert max(w[0] for w in by_atoms.values()) > 10 * min(w[0] for w in by_atoms.values())
    for weights in repeated:
        np.testing.assert_allclose(weights, weights[0], rtol=1e-9)


@pytest.mark.parametrize("p_there", [0.3, 0.8])
def test_what_the_table_says_of_a_doubtful_atom_does_not_count_twice(p_there):
    """Where the pixels say nothing the prior remains, whatever the table proposes."""
    seen = Seen(730)
    p = np.ones(len(seen.xy))
    p[seen.near[1]] = p_there
    draws = seen.draws(seen.table(p), 400, explain=lambda exists, labels: 0.0)
    there = np.array([int(seen.near[1]) in d.source_atom for d in draws])
    assert there.mean() == pytest.approx(p_there, abs=0.1)
    share = float(there @ [d.atoms.info["weight"] for d in draws])
    assert share == pytest.approx(0.98 / 0.99, abs=0.003)  # 0.98 the crystal's atom, 0.01 empty


def test_the_integral_over_amplitudes_is_that_of_the_pixels():
    """The likelihood in the parameters equals the normal density of the pixels themselves."""
    rng = np.random.default_rng(0)
    columns, data = rng.normal(size=(30, 9)), rng.normal(size=30)
    variance = rng.uniform(0.5, 2.0, 30)
    weighted = columns / variance[:, None]
    made = LocalLikelihood(
        np.array([0, 1]), weighted.T @ columns, weighted.T @ data,
        float(data**2 @ (1 / variance)), 0.7, 1.3,
        {"C": (2.0, 0.12), "Si": (8.0, 0.3)},
    )  # fmt: skip

    def direct(chosen):
        mean, cov = np.zeros(30), np.diag(variance) + 1.69 * columns[:, 6:] @ columns[:, 6:].T
        for i, (a, sd) in chosen.items():
            mean = mean + a * columns[:, 3 * i]
            part = a * columns[:, 3 * i : 3 * i + 3] * [sd, 0.7, 0.7]
            cov = cov + part @ part.T
        rest = data - mean
        return -0.5 * (rest @ np.linalg.solve(cov, rest) + np.linalg.slogdet(cov)[1])

    both = made.log_likelihood(np.array([True, True]), np.array(["C", "Si"]))
    one = made.log_likelihood(np.array([False, True]), np.array(["C", "C"]))
    expected = direct({0: (2.0, 0.12), 1: (8.0, 0.3)}) - direct({1: (2.0, 0.12)})
    assert both - one == pytest.approx(expected, rel=1e-9)
