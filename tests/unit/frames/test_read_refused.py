"""What is no frame is refused with the reason; nothing is unpickled."""

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
import rsciio.hspy
import tifffile
from PIL import Image as Picture
from rsciio import IO_PLUGINS

from adatom.errors import BadInput, DamagedFile
from adatom.frames import read
from adatom.frames.readers.axes import is_image
from adatom.frames.readers.stack import as_bad_input
from adatom.frames.readers.vendor import READERS, vendor_suffixes
from frame_files import KINDS, frames, signal, write


def picture(mode, *, grey=False):
    def make(path):
        ramp = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
        other = ramp if grey else ramp[:, ::-1]
        Picture.fromarray(np.stack([ramp, other, ramp], axis=2)).convert(mode).save(path)

    return make


def text(content):
    return lambda path: path.write_bytes(content)


def saved(array):
    return lambda path: np.save(path, array)


def h5_of(**datasets):
    def make(path):
        with h5py.File(path, "w") as f:
            for name, value in datasets.items():
                f[name] = value

    return make


def tif_of(array, **options):
    return lambda path: tifffile.imwrite(path, array, **options)


def hspy_of(array, navigate, units="nm"):
    def make(path):
        made = signal(np.zeros((20, 20, 20)))
        made["data"] = array
        axis = made["axes"][0]
        made["axes"] = [
            {
                **axis,
                "name": f"a{i}",
                "size": n,
                "navigate": nav,
                "index_in_array": i,
                "units": units,
            }
            for i, (n, nav) in enumerate(zip(array.shape, navigate, strict=True))
        ]
        rsciio.hspy.file_writer(str(path), made)

    return make


BAD = {
    "missing.tif": (lambda _: None, "no such file"),
    "empty.tif": (text(b""), "0 bytes"),
    "empty.npy": (text(b""), "0 bytes"),
    "noending": (text(b"\x7fELF" + bytes(500)), "without an ending"),
    "program.exe": (text(b"MZ" + bytes(500)), "a .exe file"),
    "table.csv": (text(b"x,y\n1,2\n"), "a .csv file, which holds no frames"),
    "notes.txt": (text(b"hello"), "a .txt file"),
    **{
        f"text{suffix}": (text(b"this is no image, only text " * 40), "expected a ")
        for suffix in (".tif", ".dm3", ".dm4", ".emd", ".ser", ".hspy", ".mrc", ".png", ".jpg",
                       ".npy", ".npz", ".h5", ".hdf5", ".mib", ".nxs", ".bcf", ".unf")
    },
    **{
        f"program{suffix}": (text(b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 20), "expected a ")
        for suffix in (".tif", ".dm3", ".dm4", ".emd", ".ser", ".mrc", ".npy", ".h5", ".png")
    },
    "rgb.png": (picture("RGB"), "screenshot"),
    "grey-as-rgb.png": (picture("RGB", grey=True), "screenshot"),
    "rgba.png": (picture("RGBA"), "screenshot"),
    "palette.png": (picture("P"), "screenshot"),
    "rgb.jpg": (picture("RGB"), "screenshot"),
    "rgb.tif": (tif_of(np.zeros((40, 50, 3), np.uint8), photometric="rgb"), "screenshot"),
    "rgb.npy": (saved(np.zeros((40, 50, 3), np.uint8)), "screenshot"),
    "movie-rgb.npy": (saved(np.zeros((5, 40, 50, 3), np.uint8)), "screenshot"),
    "complex.npy": (saved(np.ones((40, 40), complex)), "complex"),
    "complex.tif": (tif_of(np.ones((40, 40), np.complex64), photometric="minisblack"), "complex"),
    "complex.hdf5": (h5_of(wave=np.ones((40, 40), complex)), "complex"),
    "text-table.npy": (saved(np.full((40, 40), "1.0")), "<U3"),
    "records.npy": (saved(np.zeros((40, 40), [("a", "f4"), ("b", "f4")])), "fields a, b"),
    "none.npy": (saved(np.zeros((0, 40, 40))), "at least one frame, got an empty array"),
    "none.hdf5": (h5_of(nn_input=np.zeros((0, 40, 40))), "empty array"),
    "line.npy": (saved(np.zeros(4000)), "shape (4000,)"),
    "points.npy": (saved(np.zeros((4000, 2))), "shape (4000, 2)"),
    "tiny.npy": (saved(np.zeros((8, 8))), "at least 16 x 16"),
    "scalar.npy": (saved(np.float64(3)), "shape ()"),
    "cube.npy": (saved(np.zeros((6, 6, 20, 20), np.uint8)), "datacube"),
    "cube.hdf5": (h5_of(cube=np.zeros((6, 6, 20, 20), np.uint8)), "datacube"),
    "cube.hspy": (hspy_of(np.zeros((6, 6, 20, 20)), (1, 1, 0, 0)), "datacube"),
    "spectra.hspy": (hspy_of(np.zeros((20, 20, 30)), (1, 1, 0)), "spectra"),
    "diffraction.hspy": (hspy_of(np.zeros((20, 20)), (0, 0), "1/nm"), "diffraction pattern"),
    "nothing.hdf5": (h5_of(names=np.bytes_("abc")), "no array of two or three dimensions"),
    "nothing.npz": (np.savez, "no array of two or three dimensions"),
    "old.prz": (text(b"PK"), "may run code"),
    "old.mrcz": (text(b"PK"), "may run code"),
    "old.nc": (text(b"CDF"), "may run code"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(tmp_path, name):
    make, words = BAD[name]
    make(tmp_path / name)
    with pytest.raises(BadInput) as caught:
        read(tmp_path / name)
    error = caught.value
    assert words in str(error)
    assert name in error.subject
    assert error.expected
    assert error.got
    assert error.todo.endswith((".", ")"))
    assert error.exit_code == 2
    assert "\n" not in str(error)


def test_bad_calls(tmp_path):
    np.save(tmp_path / "a.npy", frames())
    (tmp_path / "sub").mkdir()
    for bad, words in (
        ([], "got nothing"),
        ([3], "got a int"),
        ([frames(), tmp_path / "a.npy"], "got both"),
        (tmp_path / "sub", "no file of a format"),
    ):
        with pytest.raises(BadInput, match=words):
            read(bad)
    tifffile.imwrite(tmp_path / "b.tif", frames(), photometric="minisblack")
    with pytest.raises(BadInput, match=r"several: 1 \.npy, 1 \.tif"):
        read(tmp_path)


@pytest.mark.parametrize("kind", [*KINDS, "png"])
def test_truncated(tmp_path, kind):
    whole = tmp_path / f"whole.{kind}"
    if kind == "png":
        Picture.fromarray(frames(1)[0].astype(np.uint8)).save(whole)
    else:
        write(whole, frames(6))
    content = whole.read_bytes()
    for share in (0.001, 0.02, 0.3, 0.6, 0.9, 0.97):
        cut = tmp_path / f"cut.{kind}"
        cut.write_bytes(content[: max(1, int(len(content) * share))])
        with pytest.raises(BadInput, match=r"cut\.") as caught:
            read(cut)
        assert caught.value.todo


def test_damage_inside_a_whole_file(tmp_path):
    """In the last frame it shows at once; in the middle it names its frame when that is loaded."""
    path = write(tmp_path / "m.packed.tif", frames(6))
    content = path.read_bytes()
    with tifffile.TiffFile(path) as tif:
        starts = [page.dataoffsets[0] for page in tif.pages]
    for which in (5, 3):
        damaged = bytearray(content)
        damaged[starts[which] : starts[which] + 400] = bytes(400)
        path.write_bytes(damaged)
        if which == 5:
            with pytest.raises(BadInput, match=r"m\.packed\.tif, frame 5: expected a whole frame"):
                read(path)
            continue
        movie = read(path, pixel_size_A=0.1)
        assert np.array_equal(movie[4].data, frames(6)[4])
        with pytest.raises(BadInput, match=r"m\.packed\.tif, frame 3: .*copy it again") as caught:
            movie[3]
        assert caught.value.__cause__ is not None


class Evil:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize(
    "name",
    ["object.npy", "pickle.npy", "object.npz", "pickle.npz", "archive.npy", "p.hspy", "p.prz"],
)
def test_nothing_is_unpickled(tmp_path, name):
    trace, path = tmp_path / "trace", tmp_path / name
    evil = np.array([Evil(trace)] * 400, dtype=object).reshape(20, 20)
    with path.open("wb") as file:
        if name == "object.npy":
            np.save(file, evil, allow_pickle=True)
        elif name in {"object.npz", "archive.npy"}:
            np.savez(file, image=evil)
        else:
            file.write(evil.dumps())
    with pytest.raises(BadInput):
        read(path)
    assert not trace.exists()


def test_no_reader_that_runs_code_can_be_reached():
    """Read the source of every reader that is allowed: no unpickling, no evaluation of text."""
    found = [p for p in IO_PLUGINS if p["name"] in READERS]
    assert {p["name"] for p in found} == READERS
    sources = {Path(find_spec("rsciio").origin).parent / "_hierarchical.py"}
    for plugin in found:
        sources |= set(Path(find_spec(plugin["api"]).origin).parent.glob("*.py"))
    assert len(sources) > len(READERS)
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile"}, source
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), source
                assert node.value.value is False, source
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {m.partition(".")[0] for m in modules} & {
                "pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve",
            }, source  # fmt: skip
    assert not {".prz", ".mrcz", ".nc", ".zspy", ".npy"} & set(vendor_suffixes())


def test_a_table_is_no_image():
    assert is_image((1, 256, 256, 1), np.dtype("f4"))
    assert not is_image((606, 2), np.dtype("f4"))
    assert not is_image((60, 60), np.dtype("S3"))


def test_every_allowed_vendor_reader_has_the_packages_that_it_imports():
    apis = {p["name"]: p["api"] for p in IO_PLUGINS if p["name"] in READERS}
    assert set(apis) == READERS
    for api in apis.values():
        importlib.import_module(api)


def test_a_reader_without_its_package_is_told_from_a_damaged_file():
    with (
        pytest.raises(BadInput, match=r"m\.png: .*package no_such_package.*pip install") as caught,
        as_bad_input("m.png", "a .png file of frames", "The file is damaged."),
    ):
        importlib.import_module("no_such_package")
    assert not isinstance(caught.value, DamagedFile)
