"""Data files that are damaged, or made to harm: one line each, nothing wrong let through, nothing outside read."""

import json
import os
import socket
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import own_arrays
from test_formats import METADATA, arrays, write_hdf5, write_minari, write_npz

import guidedflow as gf
from guidedflow.cli import main
from guidedflow.data import formats
from guidedflow.data.download import verify_hdf5, verify_npz
from guidedflow.data.formats import hdf5, npz
from guidedflow.data.inspect import inspect
from guidedflow.data.opening import regular
from guidedflow.errors import DataError, GuidedflowError
from guidedflow.files import whole_file

HEADERS = {"PK\x03\x04": 30 + 20 + 20, "PK\x01\x02": 46 + 20, "PK\x05\x06": 22}
"""Signatures of a zip archive, and how many bytes are looked at from each on: the header, a name, the sizes."""


def inspected(path: Path) -> None:
    """An inspection; its problems are what loading would raise."""
    for problem in inspect(path).problems:
        raise DataError(problem)


def refused(path: Path, match: str, *, also=()) -> None:
    """Every way to a file's arrays ends in the same kind of line."""
    known = formats.find_format(path)
    for read in (known.load, inspected, lambda path: list(known.recordings(path)), *also):
        with pytest.raises(DataError, match=match) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------- flipped bits


def header_bytes(content: bytes) -> list[int]:
    found = set()
    for mark, size in HEADERS.items():
        at = content.find(mark.encode("latin1"))
        while at >= 0:
            found |= set(range(at, min(at + size, len(content))))
            at = content.find(mark.encode("latin1"), at + 1)
    at = content.find(b"\x93NUMPY")
    while at >= 0:
        found |= set(range(at, min(at + 128, len(content))))
        at = content.find(b"\x93NUMPY", at + 1)
    return sorted(found)


def outcome(read, path):
    """What is read; None if that was an error of one line."""
    try:
        return read()
    except GuidedflowError as error:
        problem = str(error)
    assert str(path) in problem
    assert "\n" not in problem
    return None


def held(path):
    return [(name, str(a.dtype), a.shape, np.asarray(a).tobytes()) for name, a in npz.read(path).items()]


@pytest.mark.slow
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_of_an_archive_is_an_error_or_changes_nothing(save, tmp_path, monkeypatch):
    monkeypatch.setattr("guidedflow.files.os.fsync", lambda file: None)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6, 4, 4, 3)).astype(np.uint8)
    fields = {"observations": pictures, "actions": rng.uniform(-1, 1, (6, 2)), "terminals": np.arange(6) == 5}
    # A name of 18 letters has an entry of 64 bytes in the list: one bit makes the list, or the entry before, skip it.
    path = tmp_path / "a.npz"
    save(path, **fields, rewards=rng.normal(size=6), rewards_of_18_signs=np.arange(3), metadata=json.dumps(METADATA))
    content, expected = path.read_bytes(), (held(path), npz.metadata(path))
    damaged, errors = tmp_path / "b.npz", 0
    for at in rng.choice(header_bytes(content), 300):
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(changed)
        found = outcome(lambda: (held(damaged), npz.metadata(damaged)), damaged)
        errors += found is None
        assert found in (None, expected), at
    assert errors > 150


@pytest.mark.slow
def test_a_flipped_bit_of_a_generated_hdf5_file_is_an_error_or_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    fields = {"observations": rng.normal(size=(40, 3)), "actions": rng.uniform(-1, 1, (40, 2))}
    fields |= {"rewards": rng.normal(size=40), "terminals": np.zeros(40, bool), "timeouts": np.arange(40) % 10 == 9}
    path, damaged = hdf5.write(tmp_path / "a.hdf5", fields, METADATA), tmp_path / "b.hdf5"
    content, expected = path.read_bytes(), hdf5.read(path)
    assert inspect(path).checksums == "each array has one (of gzip or Fletcher-32), and all agree"
    for at in rng.choice(len(content), 500):
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(changed)
        found = outcome(lambda: hdf5.read(damaged, hdf5.FIELDS), damaged)
        for name, array in {} if found is None else expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{name}, byte {at}")


def with_header(path: Path, header: bytes, data: bytes = bytes(24)) -> Path:
    """An archive whose array ``rewards`` has a header of one's own, and a right checksum."""
    padded = header.ljust(117) + b"\n"
    member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + data
    np.savez(path, **{name: array for name, array in arrays().items() if name != "rewards"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("rewards.npy", member)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (%s,), }" % shape
        for shape in (
            b"True",
            b"1e30",
            b"-1",
            b"2",
            b"9" * 60,
            b"3, 10**9",
            b"9223372036854775807, 9223372036854775807",
        )
    ]
    + [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': ((((((",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': 3 3, }",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
        b"{'descr': '<U0', 'fortran_order': False, 'shape': (9223372036854775807,), }",
        b"(" * 100,
        b"\xff" * 50,
        b"{'descr': '<f8', 'fortran_order': False, 'shape': '\\d',, }",
    ],
)
def test_headers_that_numpy_reads_wrongly_or_not_at_all(header, tmp_path):
    path = with_header(tmp_path / "a.npz", header)
    refused(path, r"a.npz: expected a whole npz archive of arrays, found: rewards.npy: ", also=[verify_npz])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_mapped_pictures_are_compared_when_they_are_small_or_inspected(save, tmp_path, monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (120, 4, 4, 3)).astype(np.uint8)
    path = tmp_path / "a.npz"
    save(path, **{**own_arrays(), "observations": pictures})
    dataset = formats.load(path)
    where = path if save is np.savez else next(tmp_path.glob(".unpacked/*"))
    content = bytearray(where.read_bytes())
    at = content.index(pictures[50].tobytes())
    content[at] ^= 1
    where.write_bytes(content)
    if save is np.savez_compressed:  # The copy is made anew.
        np.testing.assert_array_equal(formats.load(path).observations, pictures)
        return
    refused(path, r"a.npz: expected a whole npz archive of arrays, found: .*observations.npy")
    monkeypatch.setattr(npz, "MOST_COMPARED", 100)
    monkeypatch.setattr(npz.read, "__kwdefaults__", {"most_compared": 100})
    assert len(formats.load(path)) == len(dataset)
    assert "Bad CRC-32 for file 'observations.npy'" in inspect(path).problems[0]
    with pytest.raises(DataError, match="Bad CRC-32"):
        gf.convert(path, tmp_path / "converted.npz")


def test_an_archive_holds_what_its_list_says_and_nothing_else(tmp_path):
    path = write_npz(tmp_path / "a.npz", arrays())
    content = path.read_bytes()
    path.write_bytes(b"more" + content)
    refused(path, "something before its first array")
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("rewards.npy", b"again")
    refused(path, r"the name 'rewards.npy', twice")
    write_npz(path, arrays())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("two\nlines.npy", b"")
    refused(path, r"the name 'two\\nlines.npy', which cannot be printed")
    write_npz(path, arrays())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("other.npy", b"")
    refused(path, r"other.npy: encrypted, or packed in a way that NumPy never does")


def test_archives_that_were_written_to_a_pipe_are_read(tmp_path):
    class Pipe:
        def __init__(self, file):
            self.write, self.flush, self.read = file.write, file.flush, file.read

    with (tmp_path / "a.npz").open("wb") as file:
        np.savez_compressed(Pipe(file), **arrays())
    assert len(formats.load(tmp_path / "a.npz")) == 20


def test_what_a_compressed_array_unpacks_to_is_what_its_header_says(tmp_path):
    for data, match in (
        (bytes(50_000_000), r"a header that declares 48 bytes before"),
        (bytes(40), "declares 48 bytes"),
    ):
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 4, 4, 3), }".ljust(117) + b"\n"
        member = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data
        path = write_npz(tmp_path / "a.npz", {n: a for n, a in arrays().items() if n != "observations"})
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("observations.npy", member)
        refused(path, match)
        assert not (tmp_path / ".unpacked").exists()


def test_sizes_that_cannot_be_are_refused_before_memory_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(regular, "memory", lambda: 100)
    refused(write_npz(tmp_path / "a.npz", arrays()), r"expected arrays that fit into this machine's memory of 0.0 GB")
    refused(write_hdf5(tmp_path / "a.h5", arrays()), r"expected arrays that fit into this machine's memory of 0.0 GB")
    refused(write_minari(tmp_path / "a-v0", arrays()), r"expected arrays that fit into this machine's memory of 0.0 GB")


# --------------------------------------------------------------------------------------------------- HDF5


def replaced(path: Path, change) -> Path:
    """An HDF5 file in which ``change`` made another ``rewards``."""
    write_hdf5(path, {name: array for name, array in arrays().items() if name != "rewards"})
    with h5py.File(path, "a") as file:
        change(file)
    return path


def external(file):
    file["rewards"] = h5py.ExternalLink("other.h5", "/rewards")


def soft_to_external(file):
    file["way"] = h5py.ExternalLink("other.h5", "/")
    file["rewards"] = h5py.SoftLink("/way/rewards")


def raw(file):
    file.create_dataset("rewards", (24,), "u1", external=[("/etc/passwd", 0, 24)])


def virtual(file):
    layout = h5py.VirtualLayout((24,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "rewards", (24,))
    file.create_virtual_dataset("rewards", layout)


def endless_virtual(file):
    layout = h5py.VirtualLayout((24,), "f8", maxshape=(None,))
    source = h5py.VirtualSource("pipe", "rewards", (24,), maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    file.create_virtual_dataset("rewards", layout)


def huge(file):
    file.create_dataset("rewards", (3 * 10**12,), "u1", chunks=(2**20,))


def varying(file):
    file.create_dataset("rewards", (24,), h5py.vlen_dtype(np.uint8))


def compound(file):
    file.create_dataset("rewards", (24,), [("a", "f8"), ("b", "f8")])


def nothing(file):
    file["rewards"] = h5py.Empty("f8")


def deep(file):
    file.create_group("/".join(["rewards", *["g"] * 20]))


def doubled(file):
    group = file.create_group("rewards")
    for _ in range(8):  # 256 ways to the last one.
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


def loop(file):
    group = file.create_group("rewards")
    group["again"] = group


def unprintable(file):
    file["rewards/a\x1b[2J"] = np.zeros(24)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (external, "rewards: expected an array or a group in this file, found a link into another one"),
        (soft_to_external, "way: expected an array or a group in this file, found a link into another one"),
        (raw, "rewards: expected an array in this file, found one whose bytes are in another"),
        (virtual, "rewards: expected an array, found a virtual one"),
        (endless_virtual, "rewards: expected an array, found a virtual one"),
        (huge, r"rewards: expected an array of a size that 0 bytes of a file can hold, found 3,000,000,000,000 bytes"),
        (varying, "rewards: expected numbers, found type object"),
        (compound, "rewards: expected numbers, found type"),
        (nothing, "rewards: expected an array, found none"),
        (deep, "expected at most 16 levels"),
        (doubled, "b: expected a group of its own, found one that is in another place as well"),
        (loop, "again: expected a group of its own"),
        (unprintable, "expected a name that can be printed"),
    ],
)
def test_hdf5_files_hold_their_own_arrays_alone(change, match, tmp_path):
    write_hdf5(tmp_path / "other.h5", arrays())
    os.mkfifo(tmp_path / "pipe")  # What opens it waits without an end.
    refused(replaced(tmp_path / "a.h5", change), rf"a.h5: .*{match}")


def test_hdf5_files_are_not_verified_with_another_ones_arrays(tmp_path):
    fields = {**arrays(), "timeouts": np.zeros(24, bool)}
    path = write_hdf5(tmp_path / "a.h5", fields)
    verify_hdf5(path)
    with h5py.File(path, "a") as file:
        del file["rewards"]
        virtual(file)
    with pytest.raises(DataError, match="found a virtual one"):
        verify_hdf5(path)


def test_links_within_an_hdf5_file_are_followed(tmp_path):
    def within(file):
        file["logs/reward"] = arrays()["rewards"]
        file["rewards"] = h5py.SoftLink("logs/./reward")

    found = formats.load(replaced(tmp_path / "a.h5", within))
    np.testing.assert_allclose(found.rewards, arrays()["rewards"], rtol=1e-6)

    def in_circles(file):
        file["other"], file["rewards"] = h5py.SoftLink("rewards"), h5py.SoftLink("other")

    refused(replaced(tmp_path / "b.h5", in_circles), "rewards: expected a link to an array or a group|other: expected")


def test_flags_that_nobody_wrote_are_all_false(tmp_path):
    fields = own_arrays()
    fields["terminals"] = fields["terminals"] | fields.pop("timeouts")
    path = write_hdf5(tmp_path / "a.h5", fields)
    with h5py.File(path, "a") as file:
        file.create_dataset("timeouts", (120,), bool)
    assert formats.load(path).episodes == 6


def test_metadata_of_hdf5_files_are_texts(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", arrays(), {**METADATA, "algorithm": np.zeros((3, 3))})
    with pytest.raises(DataError, match=r"a.h5: metadata/algorithm: expected one text, found an array of shape \(3, 3"):
        formats.load(path)
    with h5py.File(path, "a") as file:
        del file["metadata/algorithm"]
        file[b"metadata/\xff\xfe"] = "x"
    with pytest.raises(DataError, match=r"a.h5: .*expected a name that can be printed"):
        formats.load(path)


# --------------------------------------------------------------------------------- what is no file, and what leads away


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_only_files_are_opened(name, tmp_path):
    path = tmp_path / name
    os.mkfifo(path)
    refused(path, "expected a data file, found a pipe")
    path.unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        refused(path, "expected a data file, found a socket")
    path.unlink()
    path.symlink_to("/dev/zero")
    refused(path, "expected a data file, found a device")
    path.unlink()
    (write_npz if name == "a.npz" else write_hdf5)(tmp_path / f"there-{name}", arrays())
    path.symlink_to(f"there-{name}")  # The user named it.
    assert len(formats.load(path)) == 20


def test_pictures_are_unpacked_beside_their_file_alone(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "a.npz"
    np.savez_compressed(path, **{"observations/../../image": np.zeros((5, 2, 2, 1), np.uint8)})
    npz.read(path)
    (copy,) = (tmp_path / "data" / ".unpacked").iterdir()
    copy.unlink()
    copy.symlink_to("/etc/passwd")
    assert npz.read(path)["observations/../../image"].shape == (5, 2, 2, 1)
    assert not copy.is_symlink()
    copy.unlink()
    copy.parent.rmdir()
    copy.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r".unpacked: expected a folder to unpack pictures into, found a link"):
        npz.read(path)
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --------------------------------------------------------------------------------------------------- Minari


def edited(path: Path, **changes) -> Path:
    file = path / "data" / "metadata.json"
    metadata = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in metadata.items() if value is not None}))
    return path


BOX = {"type": "Box", "dtype": "float32", "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"total_episodes": 2}, r"total_episodes: expected the 4 of data/main_data.hdf5, found 2; the data set is not"),
        ({"total_episodes": 5}, r"total_episodes: expected the 4 of data/main_data.hdf5, found 5; the data set is not"),
        ({"total_steps": 19}, r"total_steps: expected the 20 of data/main_data.hdf5, found 19; the data set is not"),
        ({"total_episodes": 1e12}, r"total_episodes: expected a number of 1 or more, found 1000000000000.0"),
        ({"total_episodes": True}, r"total_episodes: expected a number of 1 or more, found True"),
        ({"total_steps": None}, r"total_steps: expected a number of 1 or more, found None"),
        ({"data_format": "arrow"}, r"data_format: expected hdf5, found 'arrow'"),
        ({"data_format": None}, r"data_format: expected hdf5, found None"),
        ({"observation_space": "[" * 100_000}, r"observation_space: expected JSON of at most 32 levels, found more"),
        ({"observation_space": json.dumps(BOX | {"shape": [10**12]})}, "shape: expected at most 16,777,216 numbers"),
        ({"observation_space": json.dumps(BOX | {"shape": [1e30]})}, r"shape: expected a list of lengths, found \[1e"),
        (
            {"observation_space": json.dumps(BOX | {"shape": [3], "dtype": "O"})},
            "expected a whole Minari data set, fou",
        ),
        ({"action_space": "no json"}, "expected a whole Minari data set, found"),
        ({"minari_version": "9.9.9"}, "expected a whole Minari data set, found"),
        ({"description": "[" * 50_000}, "description: expected JSON of at most 32 levels, found more"),
        (
            {"more": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]},
            "expected JSON of at most 32 levels",
        ),
        ({"more": "a" * 2**24}, "expected at most 16,777,216 characters of JSON"),
    ],
)
def test_minari_metadata_that_is_not_true_or_not_possible(changes, match, tmp_path, capsys):
    path = edited(write_minari(tmp_path / "a-v0", arrays()), **changes)
    checks = [formats.metadata] if "description" in changes else [formats.load, inspect]
    for check in checks:
        with pytest.raises(DataError, match=match) as caught:
            check(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(path), "--run-dir", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_minari_files_are_the_sets_own(tmp_path):
    path = write_minari(tmp_path / "a-v0", arrays())
    file, metadata = path / "data" / "main_data.hdf5", path / "data" / "metadata.json"
    with h5py.File(file, "a") as opened:
        opened["episode_1/infos/more"] = h5py.ExternalLink("/etc/other.h5", "/")
    refused(path, r"a-v0: .*main_data.hdf5: episode_1/infos/more: expected an array or a group in this file")
    with h5py.File(file, "a") as opened:
        del opened["episode_1/infos/more"]
    assert len(formats.load(path)) == 20
    assert inspect(path).checksums.startswith("none of its arrays has one: a value that changed on the disk goes unn")
    for own in (file, metadata):
        moved = own.rename(tmp_path / own.name)
        own.symlink_to(moved)
        refused(path, "expected a file in .*a-v0, found a link out of it; copy the folder with its links")
        own.unlink()
        os.mkfifo(own)
        refused(path, "expected a data file, found a pipe")
        own.unlink()
        moved.rename(own)
    assert len(formats.load(path)) == 20


# --------------------------------------------------------------------------------------------------- metadata, convert


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[" * 100_000, "metadata: expected JSON of at most 32 levels, found more"),
        (json.dumps({**METADATA, "a": "x" * 2**24}), "metadata: expected at most 67,108,864 bytes"),
        ('{"generator": "guidedflow", "a": ' + "[" * 200 + "]" * 200 + "}", "metadata: expected JSON of at most 32"),
        ('{"generator": "guidedflow", "algorithm": "\\ud800"}', "metadata: expected JSON of text"),
    ],
)
def test_npz_metadata_without_an_end_makes_no_run(text, match, tmp_path, capsys):
    np.savez_compressed(tmp_path / "a.npz", **own_arrays(), metadata=np.array(text))
    with pytest.raises(DataError, match=match):
        formats.load(tmp_path / "a.npz")
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path / "a.npz"), "--run-dir", str(tmp_path / "run")])
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_stand_in_need_not_name_its_algorithm(tmp_path, caplog):
    np.savez(tmp_path / "a.npz", **own_arrays(), metadata=json.dumps({"generator": "guidedflow", "stand_in": "sine"}))
    small = {"hidden": (8,), "flow_steps": 1, "steps": 4, "log_every": 2, "save_every": 4, "batch_size": 8}
    gf.train(tmp_path / "a.npz", run_dir=tmp_path / "run", **small)
    assert "a.npz: not the published data" in caplog.text


def test_inspecting_says_what_the_checksums_cover(tmp_path):
    assert inspect(write_npz(tmp_path / "a.npz", arrays())).checksums == "each array has one (CRC-32), and all agree"
    path = write_hdf5(tmp_path / "a.h5", arrays())
    assert inspect(path).checksums.startswith("none of its arrays has one: ")
    with h5py.File(path, "a") as file:
        rewards = file["rewards"][()]
        del file["rewards"]
        file.create_dataset("rewards", data=rewards, fletcher32=True)
    assert inspect(path).checksums.startswith("1 of 5 arrays have one (all agree): ")
    content = bytearray(path.read_bytes())
    content[content.rindex(rewards.tobytes()) + 7] ^= 1
    path.write_bytes(content)
    refused(path, "a.h5: expected a whole HDF5 file, found one that cannot be read")


def test_what_a_killed_convert_left_is_removed_by_the_next(tmp_path):
    write_npz(tmp_path / "own.npz", own_arrays())
    program = (
        "import os, sys, guidedflow as gf\n"
        "from guidedflow.data.formats import npz\n"
        "npz.write = lambda file, *_, **__: (file.write(b'half'), file.flush(), os.kill(os.getpid(), 9))\n"
        "gf.convert(sys.argv[1], sys.argv[2])"
    )
    target = tmp_path / "new.npz"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "own.npz"), str(target)], check=False)
    (left,) = tmp_path.glob("*.tmp")
    others = [tmp_path / name for name in (f"new.npz.{os.getppid()}.tmp", "new.npz.mine.tmp", "new2.npz.99999999.tmp")]
    for other in others:
        other.touch()
    gf.convert(tmp_path / "own.npz", target)
    assert not left.exists()
    assert all(other.exists() for other in others)
    with whole_file(tmp_path / "new2.npz") as file:
        file.write(b"whole")
    assert not others[-1].exists()
