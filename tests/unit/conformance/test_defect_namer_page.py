"""The namer on the how-to page works as it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from adatom.core import GRAPHENE, Affine, AtomTable, EmptySites, Lattice, Other
from adatom.features.defects.base import DefectOptions

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "add-a-defect-kind.md"


def test_the_namer_of_the_page_conforms_and_names_a_hole():
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
    page = {}
    exec(code, page)  # noqa: S102 (our own page; it runs the conformance check)
    lattice = Lattice(
        GRAPHENE, (0.0, 0.0), Affine.identity(), np.zeros((2, 3)), 0.2, (0.1, 0.2), 0.02, 1.0
    )
    extent = (30.0, 30.0)
    _, xy = lattice.sites_within(extent)
    inside = np.linalg.norm(xy - 15.0, axis=1) < 4.0
    n = int((~inside).sum())
    atoms = AtomTable.build(
        frame=0, xy=xy[~inside], covariance=np.tile(np.eye(2) * 4e-4, (n, 1, 1)),
        p_exists=np.full(n, 0.99), element=["C"] * n, p_element=np.full(n, 0.99),
        votes=np.ones(n), amplitude=np.ones(n),
    )  # fmt: skip
    empty = EmptySites(xy[inside], np.full(int(inside.sum()), 0.99))
    found = page["NAMER"].name_defects(
        atoms, lattice, GRAPHENE, extent, empty, 0, DefectOptions(rings=False)
    )
    assert found.kind_values == [Other("hole")]
    assert found.data["p"][0] > 0.7
