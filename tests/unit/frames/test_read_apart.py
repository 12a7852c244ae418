"""A reader that hangs, allocates without bound or ends its process costs its file alone."""

import json
import os

import h5py
import numpy as np
import pytest

from adatom.errors import BadInput, DamagedFile
from adatom.frames import read
from adatom.frames.readers import apart
from adatom.frames.readers import read as reading
from adatom.frames.readers.answers import parse_answer
from adatom.frames.readers.apart import ReadingProcess
from adatom.frames.readers.limits import MIB, most_memory, most_seconds
from frame_files import frames, write
from packages import installed

# Harmless stand-ins for what damaged files make of libraries.
READER = '''
import os
import time

import numpy as np

from adatom.frames.readers.pixel_size import Scale
from adatom.frames.readers.stack import Stack


class Faulty:
    """Files whose first word says what happens, and whose second says when."""

    name = "faulty"
    summary = "Faults"

    def suffixes(self):
        return (".faulty",)

    def read(self, path, dataset):
        what, when = path.read_text().split()

        def fault():
            if what == "sleeps":
                time.sleep(60)
            while what == "spins":
                pass
            if what == "allocates":
                np.ones((64, 1 << 27), np.float64)
            if what == "exits":
                os._exit(0)
            if what == "prints":
                print("no answer", flush=True)
                os.write(1, b"nor this")

        def load(i):
            if when == "reading" and i == 1:
                fault()
            return np.arange(400.0).reshape(20, 20) + i

        if when == "opening":
            fault()
        return Stack(3, (20, 20), load, Scale(0.1))


FAULTY = Faulty()
'''
WORDS = {
    "sleeps": "no answer of its reader in 6 s",
    "spins": "no answer of its reader",
    "allocates": "Memory",
    "exits": "crash",
}
SLOW = [
    pytest.param(what, when, marks=pytest.mark.slow)
    for what in ("sleeps", "spins")
    for when in ("opening", "reading")
]
FAST = [
    (what, when) for what in ("allocates", "exits", "prints") for when in ("opening", "reading")
]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faulty")
    with installed(folder, "faultyfiles", READER, readers={"faulty": "FAULTY"}):
        yield folder


@pytest.fixture(scope="module")
def child(faulty):
    made = ReadingProcess()
    yield made
    made.close()


@pytest.mark.parametrize(("what", "when"), [*FAST, *SLOW])
def test_a_fault_costs_its_file_and_only_that(faulty, child, monkeypatch, what, when):
    if what in {"sleeps", "spins"}:
        monkeypatch.setattr(child, "_seconds", lambda _: 2.0)
        monkeypatch.setattr(child, "_patience", 3.0)
    path = faulty / f"{what}-{when}.faulty"
    path.write_text(f"{what} {when}")
    if what == "prints":
        assert child.open(path, None, None).load(1)[0, 0] == 1
        return
    if when == "opening":
        with pytest.raises(DamagedFile, match=WORDS[what]) as caught:
            child.open(path, None, None)
    else:
        stack = child.open(path, None, None)
        with pytest.raises(DamagedFile, match=f"frame 1: .*{WORDS[what]}") as caught:
            stack.load(1)
        assert stack.load(2)[0, 0] == 2  # opened again in another child
    assert path.name in caught.value.subject
    assert caught.value.todo
    good = np.save(faulty / "good.npy", frames(1)) or faulty / "good.npy"
    assert child.open(good, None, None).load(0).shape == (40, 56)


def test_other_files_of_a_movie_go_on(faulty, child, monkeypatch):
    for i, what in enumerate(("fine reading", "exits opening", "fine reading")):
        (faulty / f"m{i}.faulty").write_text(what)
    monkeypatch.setattr(reading, "READING", child)
    movie = read([faulty / f"m{i}.faulty" for i in range(3)])
    assert len(movie) == 6
    assert "left out, damaged: " in movie.notes[0]
    assert "m1.faulty" in movie.notes[0]
    with pytest.raises(DamagedFile, match=r"m1\.faulty"):
        read(faulty / "m1.faulty")


def test_limits_follow_the_size_of_the_file():
    assert most_memory(1000 * MIB) - most_memory(0) == 20_000 * MIB
    assert most_seconds(10**9) - most_seconds(0) == pytest.approx(200)


def test_a_process_ends_with_its_parent(tmp_path):
    """The child reads its input to the end, which the end of the parent is."""
    made = ReadingProcess()
    made.open(write(tmp_path / "a.tif", frames()), None, None)
    process = made._child
    process.stdin.close()
    assert process.wait(20) == 0
    made.close()


def test_many_files_share_one_process(tmp_path, child):
    paths = [write(tmp_path / f"{i:02}.npy", frames(1, seed=i)) for i in range(12)]
    stacks = [child.open(path, None, None) for path in paths]
    first = child._child.pid
    for i in (0, 11, 3, 0):
        assert np.array_equal(stacks[i].load(0), frames(1, seed=i)[0])
    assert child._child.pid == first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_leaves_the_child_to_its_parent(tmp_path):
    movie = read(write(tmp_path / "a.tif", frames()), pixel_size_A=0.1)
    assert reading.READING._child is not None
    pid = os.fork()
    if pid == 0:
        os._exit(0 if reading.READING._child is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert np.array_equal(movie.load(2), frames()[2])


def link_file(path, secret):
    with h5py.File(path, "w") as file:
        file["image"] = h5py.ExternalLink(str(secret), "data")
        file["own"] = frames()


def link_storage(path, secret):
    with h5py.File(path, "w") as file:
        file.create_dataset("image", (40, 56), "u2", external=[(str(secret), 0, 4480)])


def link_virtual(path, secret):
    layout = h5py.VirtualLayout((40, 56), "u2")
    layout[:] = h5py.VirtualSource(str(secret), "data", (40, 56))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("deep/image", layout)


@pytest.mark.parametrize("make", [link_file, link_storage, link_virtual])
@pytest.mark.parametrize("suffix", [".h5", ".hspy"])
def test_hdf5_takes_no_data_from_other_files(tmp_path, make, suffix):
    secret = tmp_path / "secret.bin"
    with h5py.File(secret, "w") as file:
        file["data"] = frames(1)[0]
    path = tmp_path / f"a{suffix}"
    make(path, secret)
    with pytest.raises(BadInput, match=r"takes data from another file, .*secret\.bin"):
        read(path)


def test_an_npz_that_unpacks_without_bound_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", image=np.zeros((40, 64, 64)))
    monkeypatch.setattr("adatom.frames.readers.numpy_files.most_unpacked", lambda _: MIB)
    with pytest.raises(BadInput, match="image, which unpacks to 1 MiB"):
        read(tmp_path / "a.npz")


OPENED = {"bytes": 0, "count": 1, "shape": [4, 2], "pixel_A": None, "notes": [], "dose": None}
FRAME = {"bytes": 32, "shape": [4, 2], "dtype": "<f4"}


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON",
        b"[]",
        b"[" * 5000,
        json.dumps({"bytes": "0", "ready": True}).encode(),
        json.dumps({k: v for k, v in OPENED.items() if k != "shape"}).encode(),
        *(
            json.dumps(OPENED | change).encode()
            for change in (
                {"shape": [-4, 2]},
                {"shape": [4]},
                {"count": 0},
                {"count": 2**60},
                {"bytes": -1},
                {"pixel_A": "0.1"},
                {"pixel_A": float("nan")},
                {"notes": "one text"},
                {"dose": "much"},
                {"more": 1},
            )
        ),
        *(
            json.dumps(FRAME | change).encode()
            for change in ({"dtype": "|O"}, {"dtype": "<M8"}, {"shape": []}, {"shape": [1e400]})
        ),
    ],
)
def test_an_answer_that_is_none_is_no_stack(line):
    with pytest.raises(ValueError):
        parse_answer(line + b"\n")


def test_pixels_are_as_many_as_their_shape_says():
    pixels = parse_answer(json.dumps(FRAME).encode())
    assert pixels.array(bytes(32)).shape == (4, 2)
    with pytest.raises(ValueError, match="28 bytes"):
        pixels.array(bytes(28))


def test_a_process_that_answers_nonsense_is_ended_and_replaced(tmp_path, monkeypatch):
    good = write(tmp_path / "good.tif", frames(1))
    monkeypatch.syspath_prepend(str(tmp_path))
    false = OPENED | {"shape": [-4, 2]}
    (tmp_path / "nonsense.py").write_text(
        "import sys\ndef main():\n"
        '    print(\'{"ready": true, "bytes": 0}\', flush=True)\n'
        f"    for _ in sys.stdin: print({json.dumps(false)!r}, flush=True)\n"
    )
    made = ReadingProcess()
    with monkeypatch.context() as other:
        other.setattr(apart, "_WORKER", "nonsense")
        with pytest.raises(DamagedFile, match="wrong answer"):
            made.open(good, None, None)
        assert made._child is None
    assert made.open(good, None, None).count == 1
    made.close()
