"""Warnings of adatom on the command line."""

import warnings

from adatom.cli import main as face


def test_a_warning_is_one_line_without_a_place_in_the_code(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main changes it
    monkeypatch.setattr(face, "app", lambda: warnings.warn("the cell is narrow", stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        face.main()
    told = capsys.readouterr().err
    assert told.strip() == "warning: the cell is narrow"
