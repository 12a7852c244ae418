"""The lattices of a movie's frames as plain values and as the report's table."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from adatom.core import Affine, Lattice, Material


def lattice_table(lattices: dict[int, Lattice | None], pixel_size_A: float) -> pl.DataFrame:
    """Make the report's table of lattices: scale, distortion and fit, one row per frame."""
    rows = []
    for frame, lattice in sorted(lattices.items()):
        row: dict[str, float | int | None] = {"frame": frame, "pixel_size_A": pixel_size_A}
        if lattice is not None:
            m = lattice.affine.array()
            first, second = lattice.affine.strain()
            row |= {
                "scale_x": float(m[0, 0]),
                "scale_y": float(m[1, 1]),
                "strain_1": first,
                "strain_2": second,
                "angle_deg": float(np.degrees(lattice.angle_rad)) % 60.0,
                "rms_A": lattice.rms_A,
                "matched": lattice.matched,
            }
        rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def lattice_to_json(lattice: Lattice | None) -> dict[str, Any]:
    """Plain values of a lattice."""
    if lattice is None:
        return {}
    return {
        "material": lattice.material.name,
        "center_xy_A": list(lattice.center_xy_A),
        "affine": lattice.affine.array().tolist(),
        "bend": lattice.bend.tolist(),
        "angle_rad": lattice.angle_rad,
        "origin_xy_A": list(lattice.origin_xy_A),
        "rms_A": lattice.rms_A,
        "matched": lattice.matched,
    }


def lattice_from_json(plain: dict[str, Any], material: Material) -> Lattice | None:
    """Read what `lattice_to_json` wrote."""
    if not plain:
        return None
    return Lattice(
        material=material,
        center_xy_A=(plain["center_xy_A"][0], plain["center_xy_A"][1]),
        affine=Affine.from_array(np.asarray(plain["affine"])),
        bend=np.asarray(plain["bend"]),
        angle_rad=plain["angle_rad"],
        origin_xy_A=(plain["origin_xy_A"][0], plain["origin_xy_A"][1]),
        rms_A=plain["rms_A"],
        matched=plain["matched"],
    )
