"""Maps that are summarised in tiles equal those of the whole frame."""

import numpy as np
import pytest

from adatom.analysis.frame import analyse_frame
from adatom.core import GRAPHENE
from adatom.learning import weights
from adatom.learning.device import use_threads
from adatom.learning.predict import OVERLAP_PX, predict, predict_tiles
from sheets import graphene_frame


@pytest.mark.slow
def test_maps_summarised_tile_by_tile_are_those_of_the_whole():
    use_threads(1)
    ensemble = weights.load_shipped("graphene")
    truth = graphene_frame(67, px=0.15, counts=10.0, field=(70, 60))
    whole = predict(truth.frame, ensemble)
    tiles = list(predict_tiles(truth.frame, ensemble, tile_px=2 * OVERLAP_PX + 80))
    assert len(tiles) > 4
    for name, got in analyse_frame(truth.frame, ensemble, GRAPHENE, predictions=tiles).maps.items():
        np.testing.assert_allclose(got, getattr(whole, name)(), atol=2e-3, err_msg=name)
