"""Odd structure and material files: one clear line each, and no traceback."""

import time

import pytest

from adatom.errors import BadInput
from adatom.materials.library import load_material


def poscar(cell=("5 0 0", "0 5 0", "0 0 5"), symbols="Si", count="1", places="0 0 0", scale="1"):
    return "\n".join(["a", scale, *cell, symbols, count, "Direct", places, ""])


def xyz(*rows, lattice="5 0 0 0 5 0 0 0 5", count=None, properties="species:S:1:pos:R:3"):
    head = f'Lattice="{lattice}" Properties={properties}'
    return "\n".join([str(len(rows) if count is None else count), head, *rows, ""])


def cif(rows="Si1 Si 0 0 0", **cell):
    usual = dict.fromkeys(("length_a", "length_b", "length_c"), 5)
    lengths = usual | dict.fromkeys(("angle_alpha", "angle_beta", "angle_gamma"), 90) | cell
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z")
    return "\n".join(
        ["data_x", *(f"_cell_{k} {v}" for k, v in lengths.items()),
         "_symmetry_space_group_name_H-M 'P 1'", "loop_",
         *(f"_atom_site_{c}" for c in columns), rows, ""]
    )  # fmt: skip


def crystal(columns='{ is = "Fe", at = [0, 0] }', cell="[[3, 0], [0, 3]]"):
    return f'name = "m"\n[crystal]\ncell_A = {cell}\ncolumns = [{columns}]\n'


def bulk(arguments, axis="[0, 0, 1]"):
    return f'name = "m"\n[structure]\nbulk = {{ {arguments} }}\nzone_axis = {axis}\n'


ODD = {
    "empty.cif": "", "zeros.cif": "\0\0\0", "page.cif": "<html>404</html>", "text.xyz": "hello",
    "no lattice vector.vasp": poscar(("0 0 0", "0 5 0", "0 0 5")),
    "in one plane.vasp": poscar(("5 0 0", "0 5 0", "5 5 0")),
    "nan.vasp": poscar(("nan 0 0", "0 5 0", "0 0 5")),
    "inf.vasp": poscar(("inf 0 0", "0 5 0", "0 0 5")),
    "huge.vasp": poscar(("1e9 0 0", "0 1e9 0", "0 0 1e9")),
    "tiny.vasp": poscar(("1e-6 0 0", "0 1e-6 0", "0 0 1e-6")),
    "nowhere.vasp": poscar(places="nan 0 0"), "no scale.vasp": poscar(scale="0"),
    "minus one atom.vasp": poscar(count="-1"), "no atom.vasp": poscar(count="0", places=""),
    "a billion.vasp": poscar(count="1000000000"), "two numbers.vasp": poscar(places="0 0"),
    "no element.vasp": poscar(symbols="Zz"), "no symbols.vasp": poscar(symbols=""),
    "more.xyz": xyz("Si 0 0 0", count=3), "no atoms.xyz": xyz(), "X.xyz": xyz("X 0 0 0"),
    "a trillion.xyz": xyz("Si 0 0 0", count=10**12), "eight.xyz": xyz("Si 0 0 0", lattice="5 " * 8),
    "inf.xyz": xyz("Si inf 0 0"), "kind.xyz": xyz("Si 0 0 0", properties="species:Q:1:pos:R:3"),
    "near.xyz": xyz("Si 0 0 0", "Si 0.5 0 0"),
    "angle 0.cif": cif(angle_gamma=0), "angle 180.cif": cif(angle_gamma=180),
    "no length.cif": cif(length_a=0), "word.cif": cif(length_a="five"),
    "mark.cif": cif(length_a="?"),
    "letters.cif": cif("Si1 Si a b c"), "short row.cif": cif("Si1 Si 0 0"), "no site.cif": cif(""),
    "label.cif": cif("Wat1 Wat 0 0 0"),
    "list.toml": bulk('name = ["Au"]'), "number.toml": bulk("name = 79"),
    "negative.toml": bulk('name = "Au", a = -4'), "zero.toml": bulk('name = "Au", a = 0'),
    "string.toml": bulk('name = "Au", a = "4"'), "huge a.toml": bulk('name = "Au", a = 1e9'),
    "kind.toml": bulk('name = "Au", crystalstructure = ["fcc"]'), "gas.toml": bulk('name = "H"'),
    "basis.toml": bulk('name = "Mn"'), "dummy.toml": bulk('name = "X"'),
    "index.toml": bulk('name = "Au"', "[99999999999999999999999, 1, 0]"),
    "high index.toml": bulk('name = "Au"', "[1000, 1, 0]"),
    "nul.toml": 'name = "m"\n[structure]\nfile = "a\\u0000b"\n',
    "folder.toml": 'name = "m"\n[structure]\nfile = "."\n',
    "itself.toml": 'name = "m"\n[structure]\nfile = "itself.toml"\n',
    "wide.toml": crystal(cell="[[1e200, 0], [0, 1e200]]"),
    "narrow.toml": crystal(cell="[[0.1, 0], [0, 0.1]]"),
    "twice.toml": crystal('{ is = "Fe", at = [0, 0] }, { is = "Fe", at = [1, 1] }'),
    "long.toml": crystal(f'{{ is = "{"Fe" * 4000}", at = [0, 0] }}'),
    "deep.toml": "a = " + "[" * 3000 + "]" * 3000,
    "far atoms.toml": 'name = "m"\nclosest_A = 1e300\natoms = ["Pt"]\nform = "atoms"\n',
    "wide probe.toml": 'name = "m"\nprobe_sigma_A = [1, 1e308]\natoms = ["Pt"]\nform = "atoms"\n',
}  # fmt: skip


def test_odd_files_are_refused_in_one_line(tmp_path):
    began = time.process_time()
    for name, text in ODD.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        with pytest.raises(BadInput) as refused:
            load_material(str(path))
        assert refused.value.todo, name
        assert "\n" not in refused.value.got[:200].rstrip(), name
    assert time.process_time() - began < 20.0  # a billion atoms would take minutes


def test_files_that_are_only_unusual_are_read(tmp_path):
    usual = {
        "left.vasp": poscar(("0 5 0", "5 0 0", "0 0 5")), "volume.vasp": poscar(scale="-125"),
        "lines.xyz": xyz("Si 0 0 0").replace("\n", "\r\n"), "many.xyz": xyz("Si 0 0 0") * 3,
        "error.cif": cif(length_a="5.00(3)"), "mark.toml": "\ufeff" + crystal(),
    }  # fmt: skip
    for name, text in usual.items():
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        assert load_material(str(tmp_path / name)).species[0] in ("Si", "Fe"), name
