"""Conditions of an experiment that are known exactly, for the tests of adaptation."""

from __future__ import annotations

from adatom.core.imaging import Estimate, Imaging


def known_imaging(**change: object) -> Imaging:
    """Conditions without uncertainty; `change` replaces some of them."""

    def known(value: float) -> Estimate:
        return Estimate(value, 0.0)

    values: dict[str, object] = {
        "pixel_size_A": known(0.15), "probe_sigma_A": (known(0.5), known(0.4)),
        "probe_angle_rad": known(0.7), "tail_fraction": known(0.1), "tail_width": known(2.5),
        "counts": known(12.0), "background": known(1.5), "background_variation": known(0.2),
        "background_length_A": known(7.0), "jitter_A": known(0.05), "blur_px": known(0.4),
        "noise_correlation": known(1.0), "read_noise": known(0.3), "stretch": known(0.0),
        "shear": known(0.0), "drift_x_A": known(0.0), "drift_y_A": known(0.0),
    }  # fmt: skip
    return Imaging(**(values | change))
