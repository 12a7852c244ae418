"""Nion Swift without a window, in a process of its own, with the simulated specimen as its sample.

`adatom.campaign.nion` starts it. It reads one line of settings, says the bridge's address, and ends
when its input does. Its only part that is not Nion Swift's is the sample.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from nion.device_kit import ScanDevice as ScanUnit
from nion.instrumentation import DriftTracker, HardwareSource, scan_base, stem_controller
from nion.usim_device import InstrumentDevice, ScanDevice
from nion.utils import Registry

from adatom.campaign.hosted_process import READY, specimen
from adatom.campaign.nion_sample import TwinSample
from adatom.campaign.twin import make_twin
from adatom.instrument.nion.bridge import start


class _Scan(ScanUnit.Device):  # type: ignore[misc]
    """Nion Swift's simulated scan unit; it also tells the sample where it parks the beam."""

    sample: TwinSample

    def set_scan_context_probe_position(self, scan_context: Any, probe_position: Any) -> None:
        super().set_scan_context_probe_position(scan_context, probe_position)
        self.sample.parked(scan_context, probe_position)


def main() -> None:
    """Serve until the input ends."""
    told = json.loads(sys.stdin.readline())
    options, material, seed = specimen(told)
    controls = InstrumentDevice.ValueManager()
    controls.set_value("EHT", 1e3 * options.voltage_kV)
    controls.set_value("BeamCurrent", 1e-12 * options.current_pA)
    controls.set_value("C10", 0.0)  # in focus; Nion Swift's simulated microscope begins 500 nm off
    controls.set_value("C_Blank", 1.0 if told["blanker"] else 0.0)
    half_angle = float(controls.get_value("ConvergenceAngle") or 0.0)

    def blur_A() -> float:
        # A uniform disc has half its radius as the standard deviation along an axis.
        return half_angle * abs(float(controls.get_value("C10") or 0.0)) * 1e10 / 2

    sample = TwinSample(make_twin(options, material, seed, blur_A=blur_A))

    def changed(name: str) -> None:
        if name == "is_blanked":
            sample.blanked(on=controls.is_blanked)

    changed("is_blanked")
    listener = controls.property_changed_event.listen(changed)
    _run_swift(controls, sample)
    bridge, address, _ = start(
        key=told["key"], blanker=told["blanker"], rest_nm=options.sheet_A / 10.0
    )
    bridge.rest()
    print(f"{READY}{address}", flush=True)
    sys.stdin.read()
    bridge.rest()
    listener.close()


def _run_swift(controls: Any, sample: TwinSample) -> None:
    """Start Nion Swift's instrumentation with its simulated microscope."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # Nion Swift asks for that of the thread which registers a part
    threading.Thread(target=loop.run_forever, daemon=True).start()
    stem_controller.register_event_loop(loop)
    HardwareSource.run()
    DriftTracker.run()
    scan_base.run(Path(tempfile.mkdtemp(prefix="adatom-nion-")))  # for its settings
    axes = InstrumentDevice.AxisManager()
    instrument = InstrumentDevice.Instrument("usim_stem_controller", controls, axes, sample)
    Registry.register_component(instrument, {"instrument_controller", "stem_controller"})
    module = ScanDevice.ScanModule(instrument)
    unit = _Scan("usim_scan_device", "uSim Scan", instrument, ScanDevice.ScanBoxSimulator(sample))
    unit.sample = sample
    module.device = unit
    Registry.register_component(module, {"scan_module"})


if __name__ == "__main__":
    main()
