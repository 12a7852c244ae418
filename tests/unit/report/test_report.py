"""The report: its sections, numbers and warnings, and safety against malicious names."""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import numpy as np
import polars as pl
import pytest

from adatom.core import GRAPHENE, Advice, Calibration, DefectTable, SimulationResult
from adatom.core.transitions import SCHEMA as TRANSITIONS
from adatom.errors import BadInput
from adatom.report import CampaignView, FrameMaps, StepSummary, facts, summary, write_report
from adatom.report.picture import campaign_figure, write_picture
from adatom.report.report import page
from views import (
    heated,
    lattice_xy,
    make_defects,
    make_frame,
    make_structure,
    make_view,
    relaxed,
)

SECTIONS = ("found", "defects", "structures", "dynamics", "advice", "frames", "made")
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
        self.labels: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.count[tag] = self.count.get(tag, 0) + 1
        self.ids += [values["id"]] if "id" in values else []
        self.loads += [values[k] for k in ("src", "href", "srcset", "data") if k in values]
        assert not [k for k in values if k.startswith("on")]
        if "aria-label" in values:
            self.labels.setdefault(tag, []).append(values["aria-label"])
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


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(make_view(), path)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def render(tmp_path, view: CampaignView) -> Page:
    write_report(view, tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_the_page_has_every_section_and_stays_small(full):
    text, page = full
    assert tuple(i for i in page.ids if i in SECTIONS) == SECTIONS
    assert len(set(page.ids)) == len(page.ids)
    assert len(text.encode()) < 1_500_000


def test_the_page_loads_nothing_from_outside(full):
    text, page = full
    assert "http://" not in text
    assert "https://" not in text
    assert all(link.startswith(("data:image/", "#")) for link in page.loads)
    assert {link[1:] for link in page.loads if link.startswith("#")} <= set(page.ids)
    assert "default-src &#x27;none&#x27;" in text
    for image in page.images:
        drawing = unquote(image["src"].removeprefix("data:image/svg+xml,"))
        tree = ET.fromstring(drawing)  # noqa: S314 - our own drawing
        links = [v for e in tree.iter() for k, v in e.attrib.items() if k.endswith("href")]
        assert all(v.startswith(("#", "data:image/png;base64,")) for v in links)


def test_every_picture_has_alt_text_and_a_caption(full):
    _, page = full
    assert all(len(image["alt"]) > 15 for image in page.images)
    assert page.count["figure"] == page.count["figcaption"]
    assert page.labels["svg"]
    assert all(len(label) > 15 for label in page.labels["svg"])


def test_the_table_of_lattices_has_the_rms_and_the_share_of_matched_atoms(full):
    _, page = full
    assert "rms (Å) Matched (%) 0 0.1600" in page.text
    assert "0.080 95" in page.text


def test_the_first_screen_tells_the_defect_its_certainty_and_what_the_simulations_say(full):
    _, page = full
    first = page.text[: page.text.index("x and y: in the frame that shows it best")]
    assert first.count("Silicon in place of carbon, three bonds") >= 2
    assert "6 frames of graphene: 354 C and 6 Si atoms, placed with a median σ of" in first
    assert "5 % of them have p < 0.9" in first
    assert "More likely than not (p 0.72); in 6 of 6 frames" in first
    assert "silicon in the carbon sheet, four bonds from frame 4" in first
    assert "What to do next A Scan a region Look again here." in first
    assert "The scale is 2 % off the lattice." in first


def test_every_frame_is_in_the_viewer_with_its_defects_and_atoms(full):
    text, _ = full
    data = json.loads(re.search(r'id="frames-data">(.*?)</script>', text, re.DOTALL)[1])
    assert [f["n"] for f in data["frames"]] == list(range(6))
    assert text.count('class="defect"') == 6
    row = np.dtype(
        [("x", "<u2"), ("y", "<u2"), ("s", "<u2"), ("p", "u1"), ("e", "u1"), ("q", "u1")]
    )
    packed = np.frombuffer(base64.b64decode(data["frames"][3]["atoms"]), dtype=row)
    xy, extent = lattice_xy(), 96 * 0.16
    inside = xy[:, 0] < extent
    x = (packed["x"] / 65535 * 1.1 - 0.05) * extent - 0.08
    assert x[inside] == pytest.approx(xy[inside, 0], abs=3e-4)
    assert packed["s"][0] / 1e4 == pytest.approx(math.sqrt(0.016 / 2), abs=1e-4)
    assert data["elements"][packed["e"][30]][0] == "Si"
    assert "networks" in data["frames"][0]
    assert "networks" not in data["frames"][1]


def test_regions_unlike_training_are_boxes_on_their_frame(tmp_path, full):
    view = replace(make_view(), ood_regions={2: ((1.0, 2.0, 4.0, 8.0),)})
    write_report(view, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    box = '<rect x="1.00" y="2.00" width="3.00" height="6.00" class="unlike">'
    marks = {part.partition('"')[0]: part for part in text.split('data-frame="')[1:]}
    assert text.count(box) == 1
    assert box in marks["2"]
    assert "unlike training" in text
    assert "unlike training" not in full[0]


def test_regions_that_lack_columns_are_boxes_on_their_frame(tmp_path, full):
    view = replace(make_view(), missed_regions={2: ((1.0, 2.0, 4.0, 8.0),)})
    write_report(view, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    box = '<rect x="1.00" y="2.00" width="3.00" height="6.00" class="missed">'
    marks = {part.partition('"')[0]: part for part in text.split('data-frame="')[1:]}
    assert text.count(box) == 1
    assert box in marks["2"]
    assert "columns missed" in text
    assert "columns missed" not in full[0]


def test_the_same_view_gives_the_same_bytes_and_no_other_file(tmp_path):
    xy = lattice_xy()
    for name in ("one.html", "two.html"):
        view = make_view(frames={0: make_frame(0, xy, 30)}, structures=(), results=(), advice=())
        write_report(view, tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.html", "two.html"]


def test_the_page_of_an_empty_campaign_names_the_missing_steps(tmp_path):
    page = render(tmp_path, CampaignView("Nothing", "a.tif", GRAPHENE, 3, directory="run-7"))
    assert tuple(i for i in page.ids if i in SECTIONS) == SECTIONS
    assert "3 frames of graphene; no atoms have been found yet." in page.text
    assert page.text.count("adatom simulate run-7") == 2
    assert page.images == []


def test_a_campaign_without_simulations_makes_a_page(tmp_path):
    view = make_view(
        maps={}, defects=make_defects(6, linked=False), structures=(), results=(), advice=(),
        lattice=pl.DataFrame(), warnings=(), steps=(), configuration={}, versions={},
    )  # fmt: skip
    page = render(tmp_path, view)
    assert "No supercells were built yet." in page.text
    assert "Disagreement" not in page.text
    assert "warning" not in page.text


def test_a_material_without_an_engine_asks_for_no_simulation(tmp_path):
    other = replace(GRAPHENE, name="silicene", simulated_by=())
    page = render(tmp_path, make_view(material=other, structures=(), results=()))
    assert page.text.count("No engine simulates silicene.") == 2
    assert "adatom simulate" not in page.text


def test_malicious_names_stay_text(tmp_path):
    structure = make_structure(HOSTILE, 0, kind=HOSTILE)
    defects = make_defects(3).data.with_columns(
        pl.lit("<b>$x").alias("kind"), pl.lit("<i>").alias("origin")
    )
    view = make_view(
        title=HOSTILE, source=HOSTILE, warnings=[HOSTILE],
        structures=[structure],
        results=[relaxed(structure, -1.0), heated(structure, 300.0)],
        defects=DefectTable(defects), configuration={HOSTILE: {"a": HOSTILE}},
        versions={HOSTILE: HOSTILE}, steps=[StepSummary(HOSTILE, 1, 1.0)],
        advice=[Advice(HOSTILE, HOSTILE, math.nan, HOSTILE, math.nan, math.inf)],
    )  # fmt: skip
    page = render(tmp_path, view)
    assert page.count["script"] == 2
    assert page.count["b"] == 4  # title, warning, name of the frame, action: our own
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


def test_a_campaign_without_finite_values_makes_a_page(tmp_path):
    draws = [make_structure("A", d) for d in range(2)]
    results = [relaxed(draws[0], math.nan), relaxed(draws[1], math.nan, "failed: no memory")]
    empty = SimulationResult("A", -1, "lammps", "dynamics", 300.0, math.nan, math.nan,
                             "failed: lost atoms", 0.1)  # fmt: skip
    page = render(
        tmp_path,
        make_view(frames={}, lattice=pl.DataFrame(), structures=draws, results=[*results, empty]),
    )
    assert "None of 2 draws converged" in page.text
    assert "failed: lost atoms" in page.text
    assert not re.search(r"\bnan\b", page.text.lower())


def test_dynamics_far_from_its_temperature_gives_a_warning():
    structure = make_structure("A", -1)
    good = make_view(structures=[structure], results=[heated(structure, 300.0)], warnings=())
    bad = make_view(structures=[structure], results=[heated(structure, 300.0, 480.0)], warnings=())
    assert summary.all_warnings(good) == []
    assert "asked for 300 K had a mean of 48" in summary.all_warnings(bad)[0]
    (run,) = facts.thermal_runs(good)
    assert run.canonical_sd_K == pytest.approx(300 * math.sqrt(2 / (3 * 32)))


def test_the_campaign_figure_is_wide_and_names_missing_parts(tmp_path):
    write_picture(make_view(), tmp_path / "full.png")
    header = (tmp_path / "full.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert int.from_bytes(header[16:20], "big") == 2400
    bare = campaign_figure(CampaignView("Nothing", "a.tif", GRAPHENE, 3))
    said = {t.get_text() for ax in bare.axes for t in ax.texts}
    assert {"no supercell yet", "no energies yet", "no dynamics yet"} <= said


def test_maps_of_wrong_shape_and_bad_tables_are_refused(tmp_path):
    with pytest.raises(BadInput, match="one map a class"):
        FrameMaps(0, ("C",), np.zeros((2, 8, 8)), np.zeros((2, 8, 8)), Calibration(0.1))
    with pytest.raises(BadInput, match="column 'frame'"):
        make_view(lattice=pl.DataFrame({"rms_A": [0.1]}))
    with pytest.raises(BadInput, match="folder that exists"):
        write_report(make_view(), tmp_path / "nowhere" / "report.html")


def make_transitions(**changes):
    jump = {
        "from_kind": "Si1C3", "to_kind": "Si1C3", "tracks": 1, "exposure_frames": 40.0, "seen": 9.0,
        "jumps": 12.0, "rate_per_frame": 0.3, "rate_low_per_frame": 0.15,
        "rate_high_per_frame": 0.52, "dwell_frames": 3.3,
    }  # fmt: skip
    change = jump | {"to_kind": "Si1C4", "seen": 2.0, "rate_per_frame": 0.055}
    none = jump | {"from_kind": "Si1C4", "to_kind": "Si1C3", "seen": 0.0}
    rows = [row | changes for row in (jump, change, none)]
    return pl.DataFrame(rows).select(pl.all(), **{
        name: pl.lit(None, pl.Float64) for name in TRANSITIONS if name not in rows[0]
    }).select(list(TRANSITIONS)).cast(TRANSITIONS)  # fmt: skip


def test_rates_are_drawn_and_told_with_their_intervals():
    text = page(make_view(transitions=make_transitions()))
    assert "Transitions between the kinds of defect, with their rates" in text
    assert "jumps 0.30 (0.15–0.52)" in text
    assert "per frame, with 90 % intervals" in text
    assert text.count('marker-end="url(#tip)"') == 1  # the change that did not happen is not drawn
    timed = {"rate_per_s": 0.6, "rate_low_per_s": 0.3, "rate_high_per_s": 1.04}
    text = page(make_view(transitions=make_transitions(**timed)))
    assert "jumps 0.60 (0.30–1.0)" in text
    assert "per second, with 90 % intervals" in text
    still = page(make_view())
    assert "Transitions between" not in still
