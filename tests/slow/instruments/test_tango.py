"""A Tango device server without a database hosts the twin; tests need the extra ``tango``."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from adatom.campaign.hosted_process import HostedProcess
from adatom.campaign.tango import TANGO, TangoOptions
from adatom.campaign.twin import make_twin
from adatom.conformance.instruments import check_instrument
from adatom.core import GRAPHENE, BeamRequest, ScanRequest
from adatom.errors import BadInput, InstrumentGone, StepFailed
from adatom.instrument.limits import Limits
from adatom.instrument.twin_options import TwinOptions

pytestmark = pytest.mark.slow
tango = pytest.importorskip("tango")
_STILL = TwinOptions(drift_A=0.0, vacancies=0, hop_cross_section_A2=0.0)
_RESTLESS = TwinOptions(drift_A=0.0, vacancies=0, hop_cross_section_A2=1e-6)
_SEED = 4
_LIMITS = Limits(
    voltage_kV=(55, 65), most_current_pA=60, field_of_view_A=(5, 40), longest_dwell_s=5
)


def silicon(options: TwinOptions, towards: float = 0.0) -> np.ndarray:
    """Place of the Si atom from the middle of the scan, or in part towards a neighbour, Å."""
    twin = make_twin(options, GRAPHENE, _SEED)
    xy, species = twin.truth
    atom = xy[np.argmax(species)]
    neighbour = xy[np.argsort(np.linalg.norm(xy - atom, axis=1))[1]]
    return atom + towards * (neighbour - atom) - np.asarray(twin.center_xy_A)


def brightest(frame, request: ScanRequest) -> np.ndarray:
    """Place of the brightest spot from the middle of the scan, Å; noise moves it by 0.1 to 0.3."""
    smooth = gaussian_filter(frame.data, 3.0)
    row, col = np.unravel_index(np.argmax(smooth), smooth.shape)
    return request.to_specimen(np.array([col, row]) * frame.calibration.pixel_size_A)


def started(twin: TwinOptions = _RESTLESS, **more) -> HostedProcess:
    """Start a device server that is not the instrument's own."""
    module = "adatom.campaign.tango_server"
    return HostedProcess(module, "server", "tango", twin, GRAPHENE, _SEED, **more)


@pytest.fixture(scope="module")
def server():
    server = started()
    yield server
    server.end()


def options(server, **more) -> TangoOptions:
    scan = server.address.replace("/microscope/", "/scan/")
    usual = {"device": server.address, "scan_device": scan, "limits": _LIMITS, "voltage_kV": 60.0}
    return TangoOptions(**{**usual, **more})


def test_it_conforms():
    check_instrument(TANGO)


@pytest.mark.parametrize("without", [["blank_beam", "unblank_beam"], ["place_beam"]])
def test_a_server_of_fewer_verbs_conforms(without):
    server = started(_STILL, without=without)
    check_instrument(TANGO, options=options(server))
    server.end()


def test_what_a_server_cannot_is_said(server):
    microscope = TANGO.open(options(server), GRAPHENE)
    can = microscope.capabilities
    assert (can.blanks, can.traces, can.simulated) == (True, False, False)
    assert any("abort" in note for note in can.notes)


def test_frames_and_the_parked_beam_are_where_they_were_asked_for(server):
    microscope = TANGO.open(options(server), GRAPHENE)
    atom = silicon(_RESTLESS)
    for center in ((0.0, 0.0), (2.0, -3.0)):
        request = ScanRequest(center, 20.0, 160, 2e4)
        assert np.linalg.norm(brightest(microscope.acquire(request), request) - atom) < 0.5
    far = BeamRequest(request, tuple(atom + 5.0 - request.to_specimen(np.zeros(2))), 0.5)
    microscope.place_beam(far)
    time.sleep(0.5)  # blanked, and aside
    assert np.linalg.norm(brightest(microscope.acquire(request), request) - atom) < 0.5
    # The prior's rate peaks at 0.85 of the way to a neighbour.
    here = tuple(silicon(_RESTLESS, 0.85) - request.to_specimen(np.zeros(2)))
    for _ in range(5):  # an atom may hop there and back within one dwell
        microscope.place_beam(BeamRequest(request, here, 0.3))
        if np.linalg.norm(brightest(microscope.acquire(request), request) - atom) > 1.0:
            return
    pytest.fail("the atom did not move")


def test_a_beam_that_cannot_be_blanked_rests_aside():
    server = started(without=["blank_beam", "unblank_beam"])
    microscope = TANGO.open(options(server), GRAPHENE)
    can = microscope.capabilities
    assert not can.blanks
    assert can.parks_aside
    time.sleep(1.0)
    request = ScanRequest((0.0, 0.0), 20.0, 160, 1e4)
    seen = brightest(microscope.acquire(request), request)
    assert np.linalg.norm(seen - silicon(_RESTLESS)) < 0.5
    server.end()


def test_an_abort_ends_a_dwell(server):
    microscope = TANGO.open(options(server), GRAPHENE)
    request = ScanRequest((0.0, 0.0), 20.0, 64, 1e3)
    threading.Timer(0.3, microscope.abort).start()
    began = time.monotonic()
    assert microscope.place_beam(BeamRequest(request, (19.0, 19.0), 5.0)).stopped
    assert time.monotonic() - began < 3.0


def test_it_is_gone_when_its_server_ends():
    server = started()
    microscope = TANGO.open(options(server), GRAPHENE)
    server.end()
    with pytest.raises(InstrumentGone):
        microscope.acquire(ScanRequest((0.0, 0.0), 20.0, 64, 1e4))
    microscope.abort()  # a loop that ends does so without a further error


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"limits": None}, "not driven without"),
        ({"voltage_kV": None}, "voltage_kV"),
        ({"voltage_kV": 300.0}, "for which limits"),
        ({"current_pA": 100.0}, "probe current"),
        ({"device": "tango://127.0.0.1:1/a/b/c#dbase=no"}, "a device that answers"),
        ({"device": "nonsense"}, "a device that answers"),
        ({"scan_device": "tango://127.0.0.1:1/a/b/c#dbase=no"}, "a device that answers"),
    ],
)
def test_bad_options_are_refused_before_anything_moves(server, changed, words):
    with pytest.raises(BadInput, match=words):
        TANGO.open(options(server, **changed), GRAPHENE)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"without": ["set_fov"]}, "set_fov"),
        ({"without": ["get_image_data_cached"]}, "as bytes"),
        ({"field_unit_m": 1e-9}, "metres"),
        ({"binning": 2}, "64 x 64 pixels"),
    ],
)
def test_a_server_of_another_protocol_is_refused(more, words):
    server = started(**more)
    with pytest.raises((BadInput, StepFailed), match=words):
        TANGO.open(options(server), GRAPHENE).acquire(ScanRequest((0.0, 0.0), 20.0, 64, 1e4))
    server.end()
