"""A page that cannot be written leaves the old one whole."""

import pytest

from adatom.errors import StepFailed
from adatom.report import report
from adatom.store import atomic


def test_a_full_disk_leaves_the_old_page_whole(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    target = tmp_path / "report.html"
    target.write_text("old")
    monkeypatch.setattr(report, "page", lambda view: "new")
    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(StepFailed, match="room on the disk"):
        report.write_report(None, target)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert target.read_text() == "old"
