#!/usr/bin/env bash
# nionswift-instrumentation 23.6.2 with nionswift-usim 5.4.2 (Python 3.11): the origin of a shifted scan.
#
# A scan with center_nm = (0, 50) shows the simulator's sample 50 nm further right: its picture moves by
# 50 nm to the left. The calibration of the frame moves the other way, so a feature has coordinates that
# differ by 100 nm between a frame with and one without the shift. Compute positions from the request.
#
# Seen: the picture moves by -16 px of 3.125 nm; a feature's calibrated x changes by -100 nm, not 0.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/python" -m pip --disable-pip-version-check install -q \
    nionswift==16.16.2 nionswift-instrumentation==23.6.2 nionswift-usim==5.4.2 2>/dev/null
"$place/env/bin/python" - <<'P' 2>/dev/null
import asyncio, os, pathlib, tempfile, threading
import numpy as np
from nion.instrumentation import DriftTracker, HardwareSource, camera_base, scan_base, stem_controller
from nion.usim_device import DeviceConfiguration
from nion.utils import Geometry
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
threading.Thread(target=loop.run_forever, daemon=True).start()
stem_controller.register_event_loop(loop)
HardwareSource.run(); DriftTracker.run()
place = pathlib.Path(tempfile.mkdtemp())
camera_base.run(place); scan_base.run(place)
swift = DeviceConfiguration.AcquisitionContextConfiguration(set_configuration_location=False)
swift.run()
scan = swift.instrument.scan_controller
def frame(x_nm):
    asked = scan.get_frame_parameters(0)
    asked.pixel_size, asked.fov_nm = Geometry.IntSize(128, 128), 400.0
    asked.center_nm = Geometry.FloatPoint(y=0.0, x=x_nm)
    return scan.record_immediate(asked)[0]
one, two = frame(0.0), frame(50.0)
like = np.fft.ifft2(np.fft.fft2(two.data - two.data.mean()) * np.conj(np.fft.fft2(one.data - one.data.mean()))).real
column = int(np.unravel_index(like.argmax(), like.shape)[1])
moved = column if column < 64 else column - 128
axis = [f.dimensional_calibrations[1] for f in (one, two)]
change = axis[1].convert_to_calibrated_value(64 + moved) - axis[0].convert_to_calibrated_value(64)
print(f"picture moves by {moved} px of {axis[0].scale} nm; a feature's calibrated x changes by {change:.0f} nm", flush=True)
os._exit(0 if moved == -16 and abs(change + 100) < 4 else 1)
P
