"""The conformance tests of adatom, on the parts of this package."""

import numpy as np
from adatom_example.engine import ENGINE
from adatom_example.instrument import INSTRUMENT
from adatom_example.namer import NAMER
from adatom_example.reader import READER

from adatom.conformance import (
    check_defect_namer,
    check_engine,
    check_instrument,
    check_reader,
    rattled_graphene,
)


def test_engine():
    check_engine(ENGINE, rattled_graphene(), uncovered="Si")


def test_instrument():
    check_instrument(INSTRUMENT)


def test_namer():
    check_defect_namer(NAMER)


def test_reader(tmp_path):
    frames = np.random.default_rng(0).integers(0, 99, (8, 120, 130)).astype(float)
    path = tmp_path / "movie.framestext"
    with path.open("w", encoding="utf-8") as file:
        file.write("framestext 8 120 130 12.5 pm\n")
        np.savetxt(file, frames.reshape(-1, 130), fmt="%d")
    check_reader(READER, path, frames, 0.125)
