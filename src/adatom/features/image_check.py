"""Compare the columns of a frame with its image, and say where the two disagree.

Networks see what they were trained on. The image tells of what they may miss: a column whose spot
has no brightness, a dim one that its brightness shows, a spot that no column explains, and
contamination, which hides the columns under it and shows others that are not there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from ase.data import atomic_numbers
from scipy import ndimage
from scipy.spatial import cKDTree

from adatom.core import Frame, Material
from adatom.core.arrays import BoolArray, FloatArray
from adatom.core.composition import count_formula
from adatom.core.material import ANY
from adatom.features.calibration.calibrator import LIKELY_P
from adatom.features.calibration.occupancy import class_amplitudes, log_odds, sigmoid
from adatom.features.candidates.locate import Candidates
from adatom.features.dim_columns import is_doubtful, many_doubtful, p_by_brightness
from adatom.features.hidden_columns import HiddenColumns, hidden_columns
from adatom.features.refinement.binning import BinnedFrame, bin_frame
from adatom.features.refinement.image_model import Grid
from adatom.features.refinement.refine import Refined, refine
from adatom.features.refinement.spots import spot_amplitudes
from adatom.features.residual import LEVEL_A, bright_spots, sample_at, unexplained

# Least brightness of the dimmest host relative to the brightest with which the level between the
# columns is known well enough to tell contamination: beside heavy columns, tails count more.
_EVEN = 0.4
_MOST = 0.5  # share of the doubtful sites from which hollows may be columns as well
_UNEVEN = 0.6  # least of the same ratio, over all stackings, with which tails hide no column
_EMPTY_SPREAD, _FULL_SPREAD = 0.1, 0.25  # natural scatter of both amplitudes, usual ones
_CONTRADICTED = -3.0  # log-likelihood ratio from which the image contradicts: 1 in 20
# Columns dimmer than this share of the usual amplitude are suspects. From so many on, and from such
# a share of all, they may have changed the probe that was fitted to them: a fit without them tells.
_SUSPECT, _MANY, _MANY_SHARE = 0.5, 5, 0.03
# Level above that of the clean parts, in usual amplitudes: clean columns stay below the first
# value, and all above the second are covered.
_COVERED = (0.1, 0.2)
# Level above which a place, and share of such places above which a region is said to be covered:
# the background of clean frames varies by less.
_COVERED_PLACE, COVERED_SHARE = 0.3, 0.15
# Log-odds that a covered column is there: constant; weights of its own log-odds, of its distance
# from the middle of its neighbours and of what its nearest neighbour lacks to 0.88 bonds, both in
# bonds, and of the logarithm of its brightness. Fitted on 1,663 columns of simulated graphene
# under random atoms, of which 68 were wrong.
_COVERED_WEIGHTS = (3.13, 0.5, -2.16, -13.3, -1.34)
_LOG_ODDS = (-4.0, 5.0)  # range of the networks' log-odds in that fit
_THREEFOLD = 3  # neighbours of a column in the crystals for which that was fitted
# Around a column this bright, in typical amplitudes, and this sure, up to this far, in bonds, the
# tails of its own spot are the level.
_BRIGHT, _SURE_P, _BRIGHT_BONDS = 2.0, 0.9, 2.0
_LEVEL_SIGMA = 2.0  # standard deviations of the level by counting noise that are no contamination
_RIM_BONDS = 1.2  # width of the rim of the frame where contamination is not looked for, bonds
# The level of the clean parts is this quantile of that at the likely columns; holes are darker.
_CLEAN_QUANTILE = 0.25
_MISSED_SIGMA = 6.0  # significance of a spot that no column explains
_MISSED_SHARE = 0.35  # its least brightness, in usual amplitudes of the dimmest host column
_FREE_BONDS = 0.6  # its least distance from every column
# Share of a region's likely columns that its doubtful sites must add up to: calibrated
# probabilities of pure crystals add up to less in 600 of 608 regions, and six of the eight lacked
# columns.
_DOUBTFUL_SHARE = 0.05
_FILLED_P = 0.8  # largest probability of a column in a hollow that brightness does not show


@dataclass(frozen=True, slots=True, eq=False)
class ImageCheck:
    """Where the image of a frame disagrees with the columns that were found.

    Parameters
    ----------
    boxes
        Left, top, right and bottom of each region, shape (region, 4), Å.
    unsupported
        Columns that the networks see and the image contradicts, shape (region,).
    missed
        Columns that are not likely ones and may be there, outside of contamination: spots in the
        image that no likely column explains, what the probabilities of doubtful sites add up to, or
        what the hollows hold, whichever is more, (region,).
    covered
        Share of each region that is under contamination, shape (region,).
    hidden
        Brightness of the hollows between the likely columns; None where it was not measured.
    """

    boxes: FloatArray
    unsupported: FloatArray
    missed: FloatArray
    covered: FloatArray
    hidden: HiddenColumns | None = None

    def scaled(self, scale: float) -> ImageCheck:
        """Give the same check with lengths multiplied by `scale`."""
        return replace(self, boxes=self.boxes * scale)


def check_image(
    frame: Frame,
    candidates: Candidates,
    refined: Refined,
    p_exists: FloatArray,
    material: Material,
    boxes: FloatArray,
    *,
    filled: bool = False,
) -> tuple[FloatArray, ImageCheck]:
    """Correct probabilities that the image contradicts; lengths are those of `find_candidates`.

    They fall where a column has no brightness or lies on contamination, and rise only for dim
    columns whose brightness is beyond doubt (`p_by_brightness`).

    Parameters
    ----------
    frame
        The image.
    candidates, refined
        Its sites, before and after refinement.
    p_exists
        Calibrated probability of each, shape (site,).
    material
        Gives species, bond length and coordination.
    boxes
        Regions to report, shape (region, 4), Å.
    filled
        Bright columns say that dim ones stand in the hollows between them (`hollows_are_filled`).

    Returns
    -------
    Probabilities, shape (site,), and where image and columns disagree.
    """
    if not len(p_exists) or material.has_support:
        none = np.zeros(len(boxes))
        return p_exists, ImageCheck(boxes, none, none, none)
    usual, typical = _usual_amplitudes(candidates, refined, material)
    binned = bin_frame(frame)
    p = supported_p(p_exists, *_amplitudes(frame, binned, refined, p_exists, usual), usual)
    border, bond = candidates.border_A, material.bond_length_A
    dim = p_by_brightness(binned, refined, p_exists, border, typical, bond)
    p = _raised(p, p_exists, dim)
    if filled:
        # The fit gives a part of their light to tails and background, so it contradicts too much.
        p = np.maximum(p, np.minimum(p_exists, _FILLED_P))
    px = binned.calibration.pixel_size_A
    seen = p > LIKELY_P
    rest, level = unexplained(binned, refined, seen)
    if seen.any():
        at = sample_at(level, binned.rc(refined.xy[seen]))
        level -= np.float32(np.quantile(at, _CLEAN_QUANTILE))
    even = relative_brightness(material)[[s in material.site_species for s in material.species]]
    told = not material.is_thick and float(even.min()) > _EVEN
    if told and material.coordination == _THREEFOLD:
        edge = max(round(LEVEL_A / px), 1)
        middle = np.array([np.median(binned.data)], dtype=np.float32)
        noise = float(refined.optics.noise.variance(middle)[0]) ** 0.5 / edge
        if _LEVEL_SIGMA * noise < _COVERED[0] * typical:  # else noise looks like contamination
            above = (sample_at(level, binned.rc(refined.xy)) - _LEVEL_SIGMA * noise) / typical
            brightness = refined.amplitude / usual
            p = covered_p(p, above, refined.xy, seen, material.bond_length_A, brightness)
    least = _MISSED_SHARE * float(usual[seen].min(initial=np.inf))
    spots = bright_spots(rest, binned, refined, least, _MISSED_SIGMA)
    columns = cKDTree(refined.xy[seen])
    dirty = (level > _COVERED_PLACE * typical) & told
    rim = np.ones_like(dirty)  # tails of columns outside the frame are a level too
    width = max(round(_RIM_BONDS * material.bond_length_A / px), 1)
    rim[width:-width, width:-width] = False
    dirty &= ~rim
    if binned.masked is not None:
        dirty &= ~ndimage.binary_dilation(binned.masked, iterations=width)
    bright = (refined.amplitude > _BRIGHT * typical) & (p > _SURE_P)
    _clear(dirty, binned.rc(refined.xy[bright]), _BRIGHT_BONDS * material.bond_length_A / px)
    spots = spots[sample_at(dirty, binned.rc(spots)) == 0.0]
    spots = spots[columns.query(spots)[0] > _FREE_BONDS * material.bond_length_A]
    spots = spots[frame.border_distance_A(spots) > _RIM_BONDS * material.bond_length_A]
    likely, seen = p_exists > LIKELY_P, p > LIKELY_P
    doubtful = ~seen & ~likely & (sample_at(dirty, binned.rc(refined.xy)) == 0.0)
    doubtful &= frame.border_distance_A(refined.xy) > _RIM_BONDS * material.bond_length_A
    hidden = hidden_columns(
        binned, refined.optics, refined.xy[seen], refined.amplitude[seen], boxes, bond,
        (typical, typical * min(float(even.min()), 1.0)), dirty,
    )  # fmt: skip
    expected = _count_in(boxes, refined.xy[doubtful], np.maximum(p_exists, dim)[doubtful])
    few = expected < _DOUBTFUL_SHARE * _count_in(boxes, refined.xy[seen])
    return p, ImageCheck(
        boxes,
        unsupported=_count_in(boxes, refined.xy[likely & ~seen]),
        missed=np.maximum.reduce(
            [_count_in(boxes, spots), np.where(few, 0.0, expected), hidden.missed]
        ),
        covered=_mean_in(boxes, dirty, binned),
        hidden=hidden,
    )


def shows_dim_columns(
    frame: Frame, candidates: Candidates, refined: Refined, p_exists: FloatArray, material: Material
) -> bool:
    """Tell whether most doubtful sites are columns by their brightness.

    Parameters
    ----------
    frame, candidates, refined, p_exists, material
        As of `check_image`.
    """
    _, typical = _usual_amplitudes(candidates, refined, material)
    border, bond = candidates.border_A, material.bond_length_A
    dim = p_by_brightness(bin_frame(frame), refined, p_exists, border, typical, bond)
    doubtful = is_doubtful(p_exists)
    return bool((dim[doubtful] > LIKELY_P).sum() >= _MOST * doubtful.sum())


def _raised(p: FloatArray, p_exists: FloatArray, dim: FloatArray) -> FloatArray:
    """Raise what is unlikely and has brightness; what the networks saw, to no more than that."""
    shown = (p <= LIKELY_P) & (dim > LIKELY_P)
    return np.where(shown, np.where(p_exists > LIKELY_P, np.minimum(dim, p_exists), dim), p)


def supported_again(
    binned: BinnedFrame,
    candidates: Candidates,
    refined: Refined,
    p_exists: FloatArray,
    material: Material,
) -> FloatArray | None:
    """Correct the probabilities of dim columns as `check_image` does; None if that is not enough.

    Parameters
    ----------
    binned
        The image, of `bin_frame`.
    candidates, refined, p_exists, material
        As of `check_image`.
    """
    if not len(p_exists) or material.has_support:
        return p_exists
    usual, typical = _usual_amplitudes(candidates, refined, material)
    likely = p_exists > LIKELY_P
    suspect = likely & (refined.amplitude < _SUSPECT * usual)
    if suspect.sum() >= max(_MANY, _MANY_SHARE * likely.sum()):
        return None
    if uneven(material) and many_doubtful(p_exists):
        return None
    p = supported_p(p_exists, refined.amplitude, refined.amplitude_sd, usual)
    border, bond = candidates.border_A, material.bond_length_A
    dim = p_by_brightness(binned, refined, p_exists, border, typical, bond)
    return _raised(p, p_exists, dim)


def supported_p(
    p_exists: FloatArray, amplitude: FloatArray, sd: FloatArray, usual: FloatArray
) -> FloatArray:
    """Lower the probability of columns whose amplitude is none, by Bayes' rule.

    Parameters
    ----------
    p_exists
        Probability before, shape (site,).
    amplitude, sd
        Fitted amplitude and its standard deviation, shape (site,), intensity.
    usual
        Amplitude of a column of its kind, shape (site,), intensity.

    Examples
    --------
    A dim column at a high dose, the same at a low one, and a usual one:

    >>> amplitude, sd = np.array([0.02, 0.02, 1.0]), np.array([0.02, 0.5, 0.02])
    >>> supported_p(np.full(3, 0.99), amplitude, sd, np.ones(3)).round(2).tolist()
    [0.28, 0.99, 0.99]
    """
    none, full = np.hypot(sd, _EMPTY_SPREAD * usual), np.hypot(sd, _FULL_SPREAD * usual)
    lack = np.minimum(amplitude - usual, 0.0)
    ratio = 0.5 * (amplitude / none) ** 2 - 0.5 * (lack / full) ** 2 - np.log(full / none)
    return sigmoid(log_odds(p_exists) + np.minimum(ratio - _CONTRADICTED, 0.0))


def _amplitudes(
    frame: Frame, binned: BinnedFrame, refined: Refined, p_exists: FloatArray, usual: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Amplitude of each site and its standard deviation, both (site,), for `supported_p`.

    A spot between columns, the tails of the probe and the background can stand in for each other.
    Where many likely columns are dim, the others are fitted without them, and each of the dim ones
    is one spot on a free level in what is left.
    """
    amplitude, sd = refined.amplitude.copy(), refined.amplitude_sd.copy()
    likely = p_exists > LIKELY_P
    suspect = likely & (amplitude < _SUSPECT * usual)
    many = suspect.sum() >= max(_MANY, _MANY_SHARE * likely.sum())
    if not many or (likely & ~suspect).sum() < _MANY:
        return amplitude, sd
    fit = refine(frame, refined.xy[likely & ~suspect])
    grid = Grid((binned.data.shape[0], binned.data.shape[1]))
    points = grid.spectrum(binned.rc(fit.xy), fit.amplitude)
    rest = binned.data - grid.image(points, grid.kernel(fit.optics.probe))
    rc = binned.rc(refined.xy[suspect])
    level = sample_at(ndimage.uniform_filter(rest, 3), rc)
    free = np.full(len(level), np.inf)
    amplitude[suspect], sd[suspect], _ = spot_amplitudes(rest, rc, level, free, fit.optics)
    return amplitude, sd


def covered_p(
    p_exists: FloatArray,
    level: FloatArray,
    xy: FloatArray,
    seen: BoolArray,
    bond_A: float,
    brightness: FloatArray,
) -> FloatArray:
    """Lower the probability of columns under contamination whose place or brightness is odd.

    Parameters
    ----------
    p_exists
        Probability before, shape (site,).
    level
        Level of the image between the columns above that of the clean parts, shape (site,), in
        usual amplitudes.
    xy
        Positions, shape (site, 2), Å.
    seen
        Likely columns, shape (site,): those that count as neighbours.
    bond_A
        Bond length, Å; columns have three neighbours.
    brightness
        Amplitude over the usual one of its kind, shape (site,).
    """
    weight = np.clip((level - _COVERED[0]) / (_COVERED[1] - _COVERED[0]), 0.0, 1.0)
    under = np.flatnonzero(weight > 0.0)
    if not len(under) or seen.sum() <= _THREEFOLD:
        return p_exists
    near = cKDTree(xy[seen])
    # The nearest likely column is the column itself, where it is one.
    distance, index = near.query(xy[under], k=_THREEFOLD + 1)
    own = seen[under, None]
    nearest = np.where(own[:, 0], distance[:, 1], distance[:, 0])
    chosen = np.where(own, index[:, 1:], index[:, :-1])
    aside = np.linalg.norm(xy[under] - xy[seen][chosen].mean(axis=1), axis=1)
    before = log_odds(p_exists[under])
    constant, *slopes = _COVERED_WEIGHTS
    features = (
        np.clip(before, *_LOG_ODDS),
        np.clip(aside / bond_A, 0.0, 0.7),
        np.clip(0.88 - nearest / bond_A, 0.0, 0.28),
        np.clip(np.log(np.maximum(brightness[under], 0.05)), 0.0, 2.0),
    )
    after = constant + sum(w * f for w, f in zip(slopes, features, strict=True))
    out = p_exists.copy()
    out[under] = sigmoid(before + weight[under] * np.minimum(after - before, 0.0))
    return out


def _usual_amplitudes(
    candidates: Candidates, refined: Refined, material: Material
) -> tuple[FloatArray, float]:
    """Amplitude of a column of the kind of each site, shape (site,), and of the brightest host.

    The median of its kind in the frame. Where the networks invent most of a kind, this is too low:
    it is at least what the atomic numbers say.
    """
    usual = class_amplitudes(candidates, refined)
    middle = max(float(np.median(usual)), 1e-12)
    if candidates.mass.shape[1] < 3:
        return usual, middle
    kind, share = np.argmax(candidates.mass[:, :-1], axis=1), relative_brightness(material)
    hosts = [k for k, s in enumerate(material.species) if s in material.site_species]
    first = kind == max(hosts, key=lambda k: share[k])
    if not first.any():
        return usual, middle
    reference = float(np.median(usual[first]))
    return np.maximum(usual, reference * share[kind]), reference


def brightest(candidates: Candidates, refined: Refined, material: Material) -> float:
    """Usual amplitude of the brightest host, intensity.

    Parameters
    ----------
    candidates, refined, material
        As of `check_image`.
    """
    return _usual_amplitudes(candidates, refined, material)[1]


def uneven(material: Material) -> bool:
    """Whether dim columns of a crystal stand beside bright ones, whose tails may hide them."""
    hosts = material.hosts() - {ANY}
    if not material.has_lattice or not hosts:
        return False
    brightness = relative_brightness(material)[[s in hosts for s in material.species]]
    return float(brightness.min()) < _UNEVEN * float(brightness.max())


def relative_brightness(material: Material) -> FloatArray:
    """Brightness of each species by its atomic numbers, shape (species,); 1 for the brightest host.

    Species that are no formula count as that host.
    """
    power = material.contrast_exponent
    out = np.ones(len(material.species))
    for k, label in enumerate(material.species):
        if label != ANY:
            out[k] = sum(n * float(atomic_numbers[e]) ** power for e, n in count_formula(label))
    host = [s in material.site_species and s != ANY for s in material.species]
    return np.where([s == ANY for s in material.species], 1.0, out / out[host].max(initial=1.0))


def _clear(mask: BoolArray, rc: FloatArray, radius: float) -> None:
    """Set a mask (row, col) to false around places (place, 2), pixels."""
    rows, cols = np.ogrid[: mask.shape[0], : mask.shape[1]]
    for r, c in rc:
        r0, r1 = max(int(r - radius), 0), max(int(r + radius) + 2, 0)
        c0, c1 = max(int(c - radius), 0), max(int(c + radius) + 2, 0)
        near = (rows[r0:r1] - r) ** 2 + (cols[:, c0:c1] - c) ** 2 < radius**2
        mask[r0:r1, c0:c1][near] = False


def _count_in(boxes: FloatArray, xy: FloatArray, weight: FloatArray | None = None) -> FloatArray:
    """Number of positions (site, 2) in each box, or the sum of their weights, shape (box,)."""
    x, y = xy[:, :1].T, xy[:, 1:].T
    left, top, right, bottom = (side[:, None] for side in boxes.T)
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    out: FloatArray = inside.astype(np.float64) @ (np.ones(len(xy)) if weight is None else weight)
    return out


def _mean_in(boxes: FloatArray, image: BoolArray, binned: BinnedFrame) -> FloatArray:
    """Share of the pixels of each box that are true, shape (box,)."""
    out = np.zeros(len(boxes))
    for k, (left, top, right, bottom) in enumerate(boxes):
        (r0, c0), (r1, c1) = np.round(binned.rc(np.array([[left, top], [right, bottom]]))).astype(
            int
        )
        out[k] = image[max(r0, 0) : r1 + 1, max(c0, 0) : c1 + 1].mean()
    return out
