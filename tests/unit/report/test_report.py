"""The report: right for any campaign, whole in one file, harmless whatever the names are."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import ase.build
import numpy as np
import polars as pl
import pytest

from adatom.core import (
    GRAPHENE,
    Advice,
    AtomTable,
    Calibration,
    DefectTable,
    Frame,
    ScanRequest,
    SimulationResult,
    Structure,
)
from adatom.errors import BadInput
from adatom.report import (
    CampaignView,
    FrameMaps,
    StepSummary,
    campaign_figure,
    facts,
    figures,
    markup,
    structures_figures,
    style,
    summary,
    write_picture,
    write_report,
)

SECTIONS = (
    "found", "frames", "defects", "structures", "energies", "dynamics", "advice", "made",
)  # fmt: skip
VOID = {"img", "meta", "br", "col", "input", "link"}
HOSTILE = "<script>alert('x')</script> $\\frac{ & \"quoted\" \x07 \udcff.tif"


class Page(HTMLParser):
    """Reads a page strictly: every element is closed in the order in which it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.ids: list[str] = []
        self.images: list[dict[str, str]] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.count[tag] = self.count.get(tag, 0) + 1
        self.ids += [values["id"]] if "id" in values else []
        self.loads += [values[k] for k in ("src", "href", "srcset", "data") if k in values]
        assert not [k for k in values if k.startswith("on")]
        if tag == "img":
            self.images.append(values)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words)).replace("\u202f", " ")


def lattice_xy() -> np.ndarray:
    sheet = ase.build.graphene(formula="C2", size=(6, 5, 1), vacuum=5.0)
    xy = sheet.positions[:, :2]
    return xy - xy.min(axis=0) + 0.8


def make_frame(index: int, xy: np.ndarray, bright: int, source: str = "movie.tif") -> Frame:
    rng = np.random.default_rng(index)
    n, cal = 96, Calibration(0.16)
    grid = np.arange(n) * cal.pixel_size_A
    gx = np.exp(-((grid - xy[:, :1]) ** 2) / (2 * 0.3**2))
    gy = np.exp(-((grid - xy[:, 1:]) ** 2) / (2 * 0.3**2))
    amplitude = np.ones(len(xy))
    amplitude[bright] = 4.0
    image = (gy * amplitude[:, None]).T @ gx
    return Frame(rng.poisson(image * 3 + 0.5).astype(np.float32), cal, index, source)


def make_atoms(index: int, xy: np.ndarray, bright: int, element: str = "Si") -> AtomTable:
    n = len(xy)
    covariance = np.tile(np.array([[0.01, 0.004], [0.004, 0.006]]), (n, 1, 1))
    names = ["C"] * n
    names[bright] = element
    p = np.full(n, 0.99)
    p[:3] = 0.5
    return AtomTable.build(
        frame=index, xy=xy, covariance=covariance, p_exists=p, element=names,
        p_element=p, votes=p, amplitude=np.ones(n),
    )  # fmt: skip


def make_maps(index: int) -> FrameMaps:
    rng = np.random.default_rng(index)
    mean = rng.random((2, 64, 64)).astype(np.float32) ** 4
    return FrameMaps(index, ("C", "Si"), mean, 0.1 * mean, Calibration(0.24))


def make_structure(name: str, draw: int, *, silicon: int = 1, kind: str = "Si1C3") -> Structure:
    atoms = ase.build.graphene(formula="C2", size=(4, 4, 1), vacuum=6.0)
    atoms.set_pbc(True)
    symbols = atoms.get_chemical_symbols()
    symbols[10 : 10 + silicon] = ["Si"] * silicon
    atoms.set_chemical_symbols(symbols)
    n = len(atoms)
    return Structure(
        atoms=atoms, name=name, kind=kind, frame=0, defect=0, draw=draw,
        source_atom=np.arange(n), sigma_A=np.full((n, 3), 0.05), fixed=np.zeros(n, dtype=bool),
    )  # fmt: skip


def relaxed(structure: Structure, energy: float, status: str = "done") -> SimulationResult:
    after = structure.to_ase()
    after.positions[10, 2] += 0.8
    steps = np.arange(12.0)
    trace = {"step": steps, "energy_eV": energy + 2 * np.exp(-steps), "fmax_eV_A": np.exp(-steps)}
    failed = status.startswith("failed")
    return SimulationResult(
        structure=structure.name, draw=structure.draw, engine="gfn1-xtb 0.4", task="relax",
        temperature_K=0.0, energy_eV=energy, energy_sd_eV=math.nan, status=status, seconds=3.0,
        trajectory=() if failed else (structure.to_ase(), after), trace={} if failed else trace,
    )  # fmt: skip


def heated(structure: Structure, kelvin: float, held: float | None = None) -> SimulationResult:
    rng = np.random.default_rng(int(kelvin))
    time = np.arange(0.0, 2000.0, 10.0)
    trace = {
        "time_fs": time,
        "temperature_K": rng.normal(held or kelvin, 0.14 * kelvin, len(time)),
        "energy_eV": rng.normal(-200.0, 0.2, len(time)),
    }
    return SimulationResult(
        structure=structure.name, draw=-1, engine="lammps 2025", task="dynamics",
        temperature_K=kelvin, energy_eV=-200.0, energy_sd_eV=0.2, status="done", seconds=1.5,
        trajectory=(structure.to_ase(),), trace=trace,
    )  # fmt: skip


def make_defects(frames: int, *, linked: bool = True) -> DefectTable:
    rows = [
        {
            "frame": f, "defect": 0, "kind": "Si1C3" if f < 4 else "Si1C4", "x_A": 5.0 + 0.2 * f,
            "y_A": 6.0, "p": 0.6 + 0.05 * f, "atoms": [1, 2], "track": 0 if linked else -1,
            "first_frame": 0, "origin": "first seen", "p_beam_induced": None,
        }
        for f in range(frames)
    ]  # fmt: skip
    return DefectTable(pl.DataFrame(rows))


def make_view(**changes) -> CampaignView:
    xy = lattice_xy()
    n = 6
    draws = [make_structure("Si1C3-f000", d) for d in range(-1, 4)]
    results = [relaxed(s, -100.0 + 0.1 * k) for k, s in enumerate(draws)]
    advice = [
        Advice("scan", "Look again here.", 3.0, "nats", 0.5, 1e6,
               scan=ScanRequest((6.0, 6.0), 5.0, 64, 1e4)),
        Advice("place_beam", "Move it.", 0.3, "probability", 0.1, 2e9,
               target_xy_A=(5.0, 5.0), dwell_s=2.0, voltage_kV=60.0),
    ]  # fmt: skip
    parts = {
        "title": "A silicon atom in graphene", "source": "movie.tif", "material": GRAPHENE,
        "frame_count": n, "frames": [make_frame(f, xy, 30) for f in (0, 3)],
        "maps": [make_maps(0)],
        "atoms": AtomTable.concat(make_atoms(f, xy, 30) for f in range(n)),
        "defects": make_defects(n),
        "lattice": pl.DataFrame({
            "frame": range(n), "pixel_size_A": [0.16] * n, "strain_1": [0.02] * n,
            "strain_2": [-0.01] * n, "rms_A": [0.08] * n, "matched": [0.95] * n,
        }),
        "structures": draws,
        "results": [*results, heated(draws[0], 300.0), heated(draws[0], 900.0)],
        "advice": advice, "steps": [StepSummary("find", n, 12.5)],
        "warnings": ["The scale is 2 % off the lattice."],
        "configuration": {"seed": 7, "simulation": {"draws": 4}}, "versions": {"adatom": "0.1.0"},
    }  # fmt: skip
    return CampaignView(**(parts | changes))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(make_view(), path)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def render(tmp_path, view: CampaignView) -> Page:
    write_report(view, tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_has_every_section_and_stays_small(full):
    text, page = full
    assert tuple(i for i in page.ids if i in SECTIONS) == SECTIONS
    assert len(set(page.ids)) == len(page.ids)
    assert len(text.encode()) < 3_000_000


def test_loads_nothing_from_outside(full):
    text, page = full
    assert "http://" not in text
    assert "https://" not in text
    assert all(link.startswith(("data:image/svg+xml,", "#")) for link in page.loads)
    assert {link[1:] for link in page.loads if link.startswith("#")} <= set(page.ids)
    assert "default-src &#x27;none&#x27;" in text
    for image in page.images:
        drawing = unquote(image["src"].removeprefix("data:image/svg+xml,"))
        tree = ET.fromstring(drawing)  # noqa: S314 - our own drawing
        links = [v for e in tree.iter() for k, v in e.attrib.items() if k.endswith("href")]
        assert all(v.startswith(("#", "data:image/png;base64,")) for v in links)


def test_every_picture_has_alt_text_and_a_caption(full):
    _, page = full
    assert len(page.images) >= 15
    assert all(len(image["alt"]) > 15 for image in page.images)
    assert page.count["figure"] == page.count["figcaption"] == len(page.images)


def test_says_in_words_what_was_found(full):
    _, page = full
    assert "In 6 frames of graphene, 360 atoms were found (354 C and 6 Si; 60 a frame)" in page.text
    assert "5.0 % of them exist with a probability below 0.9" in page.text
    assert "One defect was followed: Si1C3 in 6 of 6 frames." in page.text
    # Five energies 0.1 eV apart: sample standard deviation 0.158, span 0.4.
    assert "deviation of 0.16 eV and span 0.40 eV, the lowest is the most" in page.text
    assert "C₃₁Si" in page.text
    assert "300 K (held" in page.text
    assert "The scale is 2 % off the lattice." in page.text


def test_same_view_gives_the_same_bytes_and_no_other_file(tmp_path):
    xy = lattice_xy()
    for name in ("one.html", "two.html"):
        view = make_view(frames=[make_frame(0, xy, 30)], structures=(), results=(), advice=())
        write_report(view, tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.html", "two.html"]


def test_empty_campaign_says_what_has_not_been_done(tmp_path):
    page = render(tmp_path, CampaignView("Nothing", "a.tif", GRAPHENE, 3, directory="run-7"))
    assert tuple(i for i in page.ids if i in SECTIONS) == SECTIONS
    assert "3 frames of graphene; no atoms have been found yet." in page.text
    assert page.text.count("adatom simulate run-7") == 3
    assert page.images == []


def test_find_only_campaign(tmp_path):
    view = make_view(
        maps=(), defects=make_defects(6, linked=False), structures=(), results=(), advice=(),
        lattice=pl.DataFrame(), warnings=(), steps=(), configuration={}, versions={},
    )  # fmt: skip
    page = render(tmp_path, view)
    assert "not linked from frame to frame" in page.text
    assert "This frame has no maps." in page.text
    assert "Nothing relaxed yet." in page.text
    assert "warning" not in page.text


def test_names_of_kinds_are_explained(tmp_path):
    assert "Si1C3: Si bonded to 3 C; Si1C4: Si bonded to 4 C" in render(tmp_path, make_view()).text


def test_a_material_without_an_engine_asks_for_no_simulation(tmp_path):
    other = replace(GRAPHENE, name="silicene", simulated_by=())
    page = render(tmp_path, make_view(material=other, structures=(), results=()))
    assert page.text.count("No engine simulates silicene.") == 3
    assert "adatom simulate" not in page.text


def test_hostile_names_stay_text(tmp_path):
    structure = make_structure(HOSTILE, 0, kind=HOSTILE)
    defects = make_defects(3).data.with_columns(
        pl.lit("<b>$x").alias("kind"), pl.lit("<i>").alias("origin")
    )
    view = make_view(
        title=HOSTILE, frames=(), maps=(), source=HOSTILE, warnings=[HOSTILE],
        structures=[structure],
        results=[relaxed(structure, -1.0), heated(structure, 300.0)],
        defects=DefectTable(defects), configuration={HOSTILE: {"a": HOSTILE}},
        versions={HOSTILE: HOSTILE}, steps=[StepSummary(HOSTILE, 1, 1.0)],
        advice=[Advice(HOSTILE, HOSTILE, math.nan, HOSTILE, math.nan, math.inf)],
    )  # fmt: skip
    page = render(tmp_path, view)
    assert page.count["script"] == 1
    assert page.count.get("b", 0) == len(summary.key_numbers(view))
    assert "i" not in page.count
    assert "<script>alert('x')</script>" in page.text


def test_energies_of_different_composition_are_never_compared():
    one = [make_structure("A", d) for d in (0, 1)]
    two = [make_structure("B", d, silicon=2, kind="Si2C4") for d in (0, 1)]
    energies = (-10.0, -9.5, -30.0, -29.0)
    results = [relaxed(s, e) for s, e in zip(one + two, energies, strict=True)]
    groups = facts.energy_groups(make_view(structures=one + two, results=results))
    assert [g.composition for g in groups] == ["C₃₁Si", "C₃₀Si₂"]
    assert [g.lowest_eV for g in groups] == [-10.0, -30.0]
    assert len(groups[0].rows) == 1


def test_only_converged_energies_set_zero_mean_and_spread():
    draws = [make_structure("A", d) for d in range(4)]
    status = ("done", "done", "not converged", "failed: SCF")
    values = (-10.0, -9.0, -20.0, math.nan)
    results = [relaxed(s, e, st) for s, e, st in zip(draws, values, status, strict=True)]
    view = make_view(structures=draws, results=results)
    (group,) = facts.energy_groups(view)
    assert group.lowest_eV == -10.0
    assert sorted(group.rows[0].energies()) == [-10.0, -9.0]
    warned = " ".join(summary.all_warnings(view))
    assert "1 simulation of 4 failed" in warned
    assert "failed: SCF" in warned
    assert "1 relaxation did not converge" in warned
    (shown,) = facts.relaxed_defects(view)
    assert shown.result is results[0]


def test_nothing_finite_still_makes_a_page(tmp_path):
    draws = [make_structure("A", d) for d in range(2)]
    results = [relaxed(draws[0], math.nan), relaxed(draws[1], math.nan, "failed: no memory")]
    empty = SimulationResult("A", -1, "lammps", "dynamics", 300.0, math.nan, math.nan,
                             "failed: lost atoms", 0.1)  # fmt: skip
    page = render(
        tmp_path,
        make_view(frames=(), lattice=pl.DataFrame(), structures=draws, results=[*results, empty]),
    )
    assert "no relaxation gave a finite energy" in page.text
    assert "failed: lost atoms" in page.text
    assert not re.search(r"\bnan\b", page.text.lower())


def test_dynamics_far_from_its_temperature_is_warned_of():
    structure = make_structure("A", -1)
    good = make_view(structures=[structure], results=[heated(structure, 300.0)], warnings=())
    bad = make_view(structures=[structure], results=[heated(structure, 300.0, 480.0)], warnings=())
    assert summary.all_warnings(good) == []
    assert "asked for 300 K had a mean of 48" in summary.all_warnings(bad)[0]
    (run,) = facts.thermal_runs(good)
    assert run.canonical_sd_K == pytest.approx(300 * math.sqrt(2 / (3 * 32)))


def test_two_sigma_ellipse_is_true_to_scale():
    a, b, angle = 0.3, 0.1, 0.5
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    covariance = (turn @ np.diag([a**2, b**2]) @ turn.T)[None]
    table = AtomTable.build(
        frame=0, xy=np.array([[4.0, 7.0]]), covariance=covariance, p_exists=[1.0],
        element=["C"], p_element=[1.0], votes=[1.0], amplitude=[1.0],
    )  # fmt: skip
    (ellipse,) = figures._two_sigma(table)
    points = ellipse.get_patch_transform().transform(ellipse.get_path().vertices)
    distance = np.hypot(*(points - (4.0, 7.0)).T)
    assert distance.max() == pytest.approx(2 * a, rel=0.01)
    far = points[np.argmax(distance)] - (4.0, 7.0)
    assert abs(far @ (c, s)) == pytest.approx(2 * a, rel=0.01)


def test_rings_and_images_share_the_pixels_origin():
    frame = make_frame(0, lattice_xy(), 30)
    figure = figures.frame_atoms(frame, make_atoms(0, lattice_xy(), 30), ("C", "Si"))
    ax = figure.axes[0]
    left, right, bottom, top = ax.images[0].get_extent()
    assert (left, top) == pytest.approx((-0.08, -0.08))
    assert (right, bottom) == pytest.approx((96 * 0.16 - 0.08,) * 2)
    dashes = [c.get_linestyle()[0][1] for c in ax.collections if len(c.get_offsets()) == 3]
    assert dashes
    assert dashes[0] is not None
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x (Å)", "y (Å)")


def test_sheet_folded_through_the_boundary_is_flat():
    folded = make_structure("A", 0).to_ase()
    height = folded.cell.array[2, 2]
    folded.positions[:, 2] = np.where(np.arange(len(folded)) % 2, 0.01, height - 0.01)
    folded.positions[10, 2] = 0.8
    z = structures_figures.heights(folded)
    assert z[10] == pytest.approx(0.8, abs=0.03)
    assert np.abs(np.delete(z, 10)).max() < 0.03


def test_large_frames_and_many_atoms_stay_light():
    rng = np.random.default_rng(0)
    frame = Frame(rng.random((1024, 1024), dtype=np.float32), Calibration(0.1))
    xy = rng.uniform(0, 102, (4000, 2))
    figure = figures.frame_atoms(frame, make_atoms(0, xy, 5), ("C", "Si"))
    assert len(style.svg_uri(figure)) < 1_500_000


def test_blocks_are_averaged_and_levels_are_stretched():
    image = np.arange(64, dtype=np.float32).reshape(8, 8)
    small = style.shrink(image, 4)
    assert small.shape == (4, 4)
    assert small[0, 0] == image[:2, :2].mean()
    assert style.shrink(image, 8) is image
    grey = style.grey_levels(image, 0.0, 100.0)
    assert (grey.min(), grey.max()) == (0.0, 1.0)


def test_markup_escapes_text_and_keeps_markup():
    inner = markup.element("b", "1 < 2 & 3")
    outer = markup.element("p", inner, "<i>", title='"')
    assert outer == '<p title="&quot;"><b>1 &lt; 2 &amp; 3</b>\n&lt;i&gt;</p>\n'
    assert markup.number(-12700.5, 1) == "−12\u202f700.5"
    assert markup.number(math.nan) == "–"
    assert markup.listing(["a", "b", "c"]) == "a, b and c"


def test_picture_is_wide_and_says_what_is_missing(tmp_path):
    write_picture(make_view(), tmp_path / "full.png")
    header = (tmp_path / "full.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert int.from_bytes(header[16:20], "big") == 2400
    bare = campaign_figure(CampaignView("Nothing", "a.tif", GRAPHENE, 3))
    said = {t.get_text() for ax in bare.axes for t in ax.texts}
    assert {"no supercell yet", "no energies yet", "no dynamics yet"} <= said


def test_bad_parts_are_refused(tmp_path):
    with pytest.raises(BadInput, match="one map a class"):
        FrameMaps(0, ("C",), np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), Calibration(0.1))
    with pytest.raises(BadInput, match="column 'frame'"):
        make_view(lattice=pl.DataFrame({"rms_A": [0.1]}))
    with pytest.raises(BadInput, match="one set a frame"):
        make_view(maps=[make_maps(0), make_maps(0)])
    with pytest.raises(BadInput, match="folder that exists"):
        write_report(make_view(), tmp_path / "nowhere" / "report.html")
