"""Files of frames in every format, for the tests of readers."""

import struct

import h5py
import numpy as np
import rsciio.emd
import rsciio.hspy
import tifffile


def frames(count=3, rows=40, columns=56, seed=0):
    return np.random.default_rng(seed).integers(0, 4000, (count, rows, columns)).astype(np.uint16)


def signal(data, scale=0.01, units="nm"):
    names = ["t", "y", "x"][-data.ndim :]
    axes = [
        {
            "name": name,
            "size": size,
            "scale": scale,
            "offset": 0.0,
            "units": units,
            "navigate": name == "t",
            "index_in_array": i,
            "_type": "UniformDataAxis",
            "is_binned": False,
        }
        for i, (name, size) in enumerate(zip(names, data.shape, strict=True))
    ]
    return {
        "data": data,
        "axes": axes,
        "metadata": {"General": {"title": "one"}, "Signal": {"signal_type": ""}},
        "original_metadata": {},
        "learning_results": {},
        "attributes": {"_lazy": False},
        "package_info": {},
        "models": None,
        "tmp_parameters": {},
        "package": "",
        "package_version": "",
    }


def write_ser(path, data):
    """A TIA series as FEI documents it: header, dimension, offsets, then the elements."""
    n, rows, columns = data.shape
    head = 2 + 2 + 2 + 4 * 4 + 8 + 4
    dimension = struct.pack("<idd", n, 0.0, 1.0) + struct.pack("<iiii", 0, 0, 0, 0)
    table = head + len(dimension)
    first = table + 16 * n
    step = 50 + data[0].nbytes
    offsets = [first + i * (step + 8) for i in range(n)]
    with path.open("wb") as f:
        f.write(struct.pack("<HHHiiii", 0x4949, 0x0197, 0x0220, 0x4122, 0x4152, n, n))
        f.write(struct.pack("<qi", table, 1) + dimension)
        f.write(
            struct.pack(f"<{n}q", *offsets) + struct.pack(f"<{n}q", *(o + step for o in offsets))
        )
        for frame in data:
            f.write(struct.pack("<ddiddi", 0.0, 1e-11, 0, 0.0, 1e-11, 0))
            f.write(struct.pack("<hii", 2, columns, rows) + frame[::-1].tobytes())
            f.write(struct.pack("<hhi", 0x4152, 0, 0))


def write(path, data):
    """Write a movie in the format that the name says."""
    kind = path.name.partition(".")[2]
    if kind == "npy":
        np.save(path, data)
    elif kind in {"npz", "packed.npz"}:
        (np.savez if kind == "npz" else np.savez_compressed)(path, images=data)
    elif kind == "hdf5":
        with h5py.File(path, "w") as f:
            f.create_dataset("group/nn_input", data=data[..., None], chunks=(1, *data.shape[1:], 1))
    elif kind == "hspy":
        rsciio.hspy.file_writer(str(path), signal(data), chunks=(1, *data.shape[1:]))
    elif kind == "emd":
        rsciio.emd.file_writer(str(path), signal(data))
    elif kind == "ser":
        write_ser(path, data)
    else:
        assert kind in {"tif", "ij.tif", "packed.tif", "big.tif"}
        tifffile.imwrite(
            path,
            data,
            imagej=kind == "ij.tif",
            metadata={"axes": "TYX"[-data.ndim :]} if kind == "ij.tif" else None,
            compression="zlib" if kind == "packed.tif" else None,
            byteorder=">" if kind == "big.tif" else None,
            photometric="minisblack",
        )
    return path


KINDS = [
    "npy", "npz", "packed.npz", "hdf5", "hspy", "emd", "ser", "tif", "ij.tif", "packed.tif",
    "big.tif",
]  # fmt: skip
