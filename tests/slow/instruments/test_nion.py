"""Nion Swift itself, without a window, in its own process; each test needs the extra ``nion``."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from adatom.campaign.nion import NION, NionOptions
from adatom.campaign.twin import make_twin
from adatom.conformance.instruments import check_instrument
from adatom.core import GRAPHENE, BeamRequest, ScanRequest
from adatom.errors import BadInput, InstrumentGone, NoFrame, StepFailed
from adatom.instrument.limits import Limits
from adatom.instrument.nion import bridge, wire
from adatom.instrument.twin_options import TwinOptions

pytestmark = pytest.mark.slow
pytest.importorskip("nion.usim_device")
psutil = pytest.importorskip("psutil")
_STILL = TwinOptions(drift_A=0.0, vacancies=0, hop_cross_section_A2=0.0)
# An atom that leaves the beam's place within 0.1 s, and one frame in ten thousand electrons per Å².
_RESTLESS = TwinOptions(drift_A=0.0, vacancies=0, hop_cross_section_A2=1e-6)
_SEED = 4
_DOSE = 1e5


def silicon(options: TwinOptions, rotation_deg: float, towards: float = 0.0) -> np.ndarray:
    """Place of the Si atom from the middle of the scan, or in part towards a neighbour, Å.

    By a specimen of the same seed.
    """
    twin = make_twin(options, GRAPHENE, _SEED)
    xy, species = twin.truth
    atom = xy[np.argmax(species)]
    neighbour = xy[np.argsort(np.linalg.norm(xy - atom, axis=1))[1]]
    x, y = atom + towards * (neighbour - atom) - np.asarray(twin.center_xy_A)
    c, s = np.cos(np.radians(rotation_deg)), np.sin(np.radians(rotation_deg))
    return np.array([c * x + s * y, c * y - s * x])  # the picture turns counter-clockwise


def brightest(frame, request: ScanRequest) -> np.ndarray:
    """Place of the brightest spot from the middle of the scan, Å."""
    smooth = gaussian_filter(frame.data, 3.0)
    row, col = np.unravel_index(np.argmax(smooth), smooth.shape)
    xy = np.array([col, row]) * frame.calibration.pixel_size_A
    return request.to_specimen(xy)


@pytest.fixture(scope="module")
def still():
    microscope = NION.open(NionOptions(twin=_STILL, rotation_deg=30.0), GRAPHENE, seed=_SEED)
    yield microscope
    microscope.close()


@pytest.fixture(scope="module")
def restless():
    options = NionOptions(twin=_RESTLESS, rotation_deg=30.0, traces=False, blanker="")
    microscope = NION.open(options, GRAPHENE, seed=_SEED)
    yield microscope
    microscope.close()


def test_it_conforms():
    check_instrument(NION)


@pytest.mark.parametrize("center", [(0.0, 0.0), (4.0, -3.0)])
def test_a_rotated_and_shifted_scan_shows_the_atom_where_it_is(still, center):
    request = ScanRequest(center, 20.0, 160, _DOSE)
    seen = brightest(still.acquire(request), request)
    assert np.linalg.norm(seen - silicon(_STILL, 30.0)) < 0.5


def test_the_parked_beam_is_where_it_was_asked_for(still):
    """The trace is brightest on the atom, and the frame it was seen in does not matter."""
    atom = silicon(_STILL, 30.0)
    for center, field in (((0.0, 0.0), 20.0), ((3.0, 2.0), 30.0)):
        seen = ScanRequest(center, field, 160, _DOSE)
        here = atom - seen.to_specimen(np.zeros(2))
        counts = [
            still.place_beam(BeamRequest(seen, (here[0] + x, here[1] + y), 0.05)).counts.mean()
            for x, y in ((0, 0), (0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
        ]
        assert counts[0] > 1.3 * max(counts[1:])


def test_defocus_blurs_the_atom(still):
    request = ScanRequest((0.0, 0.0), 20.0, 160, 10 * _DOSE)
    sharp = gaussian_filter(still.acquire(request).data, 1.0)
    still.set_defocus(20.0)
    assert still.defocus_A == pytest.approx(20.0)
    blurred = gaussian_filter(still.acquire(request).data, 1.0)
    still.set_defocus(0.0)
    # 0.04 rad x 20 Å / 2 = 0.4 Å of blur on 0.42 Å: the peak of an atom falls to half.
    assert np.ptp(blurred) < 0.75 * np.ptp(sharp)


def test_limits_are_checked_before_anything_moves(still):
    taken = still._taken
    for request in (
        ScanRequest((0.0, 0.0), 60.0, 160, _DOSE),
        ScanRequest((20.0, 0.0), 20.0, 160, _DOSE),
        ScanRequest((0.0, 0.0), 20.0, 160, 1e12),
    ):
        with pytest.raises(BadInput):
            still.acquire(request)
    edge = ScanRequest((14.0, 0.0), 20.0, 160, _DOSE)
    with pytest.raises(BadInput, match="the middle"):
        still.place_beam(BeamRequest(ScanRequest((20.0, 0.0), 20.0, 160, _DOSE), (18.0, 9.0), 0.1))
    assert still.acquire(edge).index == taken


def test_an_abort_ends_a_scan_and_a_dwell(still):
    slow = ScanRequest((0.0, 0.0), 20.0, 512, 5e6)  # 6.4 s
    for call in (
        lambda: still.acquire(slow),
        lambda: still.place_beam(BeamRequest(slow, (1.0, 1.0), 20.0)),
    ):
        timer = threading.Timer(0.5, still.abort)
        timer.start()
        began = time.monotonic()
        with contextlib.suppress(NoFrame):
            assert call().stopped
        assert time.monotonic() - began < 2.0
        timer.join()
    assert still.acquire(ScanRequest((0.0, 0.0), 20.0, 64, 1e4)).data.max() > 0


def test_a_parked_beam_moves_the_atom_and_one_that_rests_aside_does_not(restless):
    """Without a blanker, the beam rests in the corner of the sheet."""
    can = restless.capabilities
    assert not can.blanks
    assert not can.traces
    request = ScanRequest((0.0, 0.0), 20.0, 160, 1e4)
    atom = silicon(_RESTLESS, 30.0)
    time.sleep(1.0)
    before = brightest(restless.acquire(request), request)
    assert np.linalg.norm(before - atom) < 0.5
    # The prior's rate peaks at 0.85 of the way to a neighbour.
    here = tuple(silicon(_RESTLESS, 30.0, 0.85) - request.to_specimen(np.zeros(2)))
    for _ in range(5):  # an atom may hop there and back within one dwell
        trace = restless.place_beam(BeamRequest(request, here, 0.3))
        assert trace.dwell_s == pytest.approx(0.3, abs=0.1)
        assert not np.isfinite(trace.counts).any()
        if np.linalg.norm(brightest(restless.acquire(request), request) - atom) > 1.0:
            return
    pytest.fail("the atom did not move")


def test_it_is_gone_when_its_process_ends():
    microscope = NION.open(NionOptions(twin=_STILL), GRAPHENE, seed=_SEED)
    newest = max(psutil.Process().children(), key=lambda child: child.create_time())
    newest.kill()
    with pytest.raises(InstrumentGone):
        microscope.acquire(ScanRequest((0.0, 0.0), 20.0, 64, 1e4))
    microscope.abort()  # a loop that ends does so without a further error
    microscope.close()


# A running Nion Swift with its own sample, and no adatom in it: two files and a script.
_SCRIPT = """
import asyncio, pathlib, sys, tempfile, threading
from nion.instrumentation import DriftTracker, HardwareSource, scan_base, stem_controller
from nion.instrumentation import camera_base
from nion.usim_device import DeviceConfiguration
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
threading.Thread(target=loop.run_forever, daemon=True).start()
stem_controller.register_event_loop(loop)
HardwareSource.run(); DriftTracker.run()
place = pathlib.Path(tempfile.mkdtemp())
camera_base.run(place); scan_base.run(place)
swift = DeviceConfiguration.AcquisitionContextConfiguration(set_configuration_location=False)
swift.run()
assert not any(name.startswith("adatom") for name in sys.modules)
import bridge
served, address, key = bridge.start(rest_nm=500.0)
print(address, key, flush=True)
for line in sys.stdin:
    scan = swift.instrument.scan_controller
    print(swift.instrument.GetVal("C_Blank"), scan.is_recording, *scan.probe_position,
          scan.scan_context.fov_nm, flush=True)
"""
_LIMITS = Limits(
    voltage_kV=(95, 105), most_current_pA=300, field_of_view_A=(100, 5000), longest_dwell_s=5
)


class Swift:
    """The process of a running Nion Swift."""

    def __init__(self, place: Path) -> None:
        for module in (bridge, wire):
            shutil.copy(module.__file__, place)
        (place / "run.py").write_text(_SCRIPT)
        self.process = subprocess.Popen(
            [sys.executable, "run.py"], cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.address, self.key = self.process.stdout.readline().split()

    def options(self, **more) -> NionOptions:
        return NionOptions(address=self.address, key=self.key, **{"limits": _LIMITS, **more})

    def state(self) -> list[str]:
        """Blanked, recording, probe position (y, x), field of view in nm."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def rests(self) -> bool:
        """Whether the beam is blanked and parked within 2 s, and no scan runs."""
        until = time.monotonic() + 2.0
        while self.state() != ["1.0", "False", "0.0", "0.0", "500.0"]:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True


@pytest.fixture(scope="module")
def swift(tmp_path_factory):
    swift = Swift(tmp_path_factory.mktemp("swift"))
    NION.open(swift.options(), GRAPHENE).close()
    assert swift.rests()
    yield swift
    swift.process.kill()
    swift.process.wait()


def shift(later: np.ndarray, earlier: np.ndarray) -> tuple[int, int]:
    """Rows and columns by which a picture moved."""
    one, two = (np.fft.fft2(image - image.mean()) for image in (later, earlier))
    like = np.fft.ifft2(one * np.conj(two)).real
    at = np.unravel_index(np.argmax(like), like.shape)
    return tuple(int(k if k < n // 2 else k - n) for k, n in zip(at, like.shape, strict=True))


def test_a_running_swift_scans_its_own_sample_by_our_axes(swift):
    """Nion's own sample turns and moves as the adapter says, rotated and not."""
    upright = NION.open(swift.options(), GRAPHENE)
    assert upright.conditions.voltage_kV == pytest.approx(100.0)
    assert upright.conditions.current_pA == pytest.approx(200.0)
    assert not upright.capabilities.simulated
    one = ScanRequest((0.0, 0.0), 3200.0, 128, 50.0)
    plain = upright.acquire(one).data
    upright.close()
    turned = NION.open(swift.options(rotation_deg=90.0), GRAPHENE)
    rotated = turned.acquire(one).data
    assert np.corrcoef(np.rot90(plain).ravel(), rotated.ravel())[0, 1] > 0.5
    for center, moved in (((400.0, 0.0), (0, -16)), ((0.0, 400.0), (-16, 0))):
        other = ScanRequest(center, 3200.0, 128, 50.0)
        assert shift(turned.acquire(other).data, rotated) == moved
    turned.close()


def test_a_running_swift_blanks_after_each_frame_and_when_adatom_dies(swift):
    code = (
        "from adatom.campaign.nion import *\nfrom adatom.core import *\nimport sys\n"
        f"limits = {_LIMITS.model_dump()!r}\n"
        f"o = NionOptions(address={swift.address!r}, key={swift.key!r}, limits=limits)\n"
        "m = NION.open(o, GRAPHENE)\nprint('open', flush=True)\n"
        "m.place_beam(BeamRequest(ScanRequest((0, 0), 1000, 64, 1e3), (700.0, 250.0), 5.0))\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout.readline() == "open\n"
    time.sleep(0.7)
    on = swift.state()
    assert float(on[0]) == 0.0
    assert [float(v) for v in on[2:]] == pytest.approx([0.25, 0.7, 100.0])
    with pytest.raises(StepFailed, match="another program"):
        NION.open(swift.options(), GRAPHENE)
    driver.kill()
    driver.wait()
    assert swift.rests()
    again = NION.open(swift.options(), GRAPHENE)
    again.acquire(ScanRequest((0.0, 0.0), 1000.0, 64, 1e3))
    assert swift.rests()
    again.close()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"limits": None}, "not driven without"),
        ({"limits": _LIMITS.model_copy(update={"voltage_kV": (55, 65)})}, "for which limits"),
        ({"limits": _LIMITS.model_copy(update={"most_current_pA": 100})}, "probe current"),
        ({"channel": "BF"}, "HAADF"),
        ({"key": "another"}, "key"),
        ({"address": "127.0.0.1:1"}, "HOST:PORT"),
        ({"address": "nowhere"}, "HOST:PORT"),
    ],
)
def test_bad_options_are_refused_before_anything_moves(swift, changed, words):
    options = NionOptions(**{**swift.options().model_dump(), **changed})
    with pytest.raises(BadInput, match=words):
        NION.open(options, GRAPHENE)
    assert swift.rests()
