"""Every format of training data keeps one contract; what training reads of a file does not depend on its format."""

import json
import warnings
from pathlib import Path
from types import ModuleType

import h5py
import jax
import numpy as np
import pytest
from conftest import guidedflow, own_arrays

import guidedflow as gf
from guidedflow.data import formats
from guidedflow.data.formats import FORMATS, Format
from guidedflow.data.inspect import inspect
from guidedflow.errors import DataError, SettingsError

METADATA = {"generator": "guidedflow", "algorithm": "made for a test"}


def arrays() -> dict[str, np.ndarray]:
    """Episodes of whole lengths, each with its final observation: what all three formats can hold."""
    rows, last = np.arange(24), np.arange(24) % 6 == 5
    rng = np.random.default_rng(0)
    return {
        "observations": rng.normal(size=(24, 3)).astype(np.float32),
        "actions": np.where(last[:, None], 0, rng.uniform(-0.9, 0.9, (24, 2))).astype(np.float32),
        "rewards": np.where(last, 0, rng.normal(size=24)),
        "terminals": (rows % 12 == 4),
        "final_observation": last,
    }


def write_npz(path: Path, fields, metadata=None) -> Path:
    np.savez(path, **fields, **({} if metadata is None else {"metadata": np.array(json.dumps(metadata))}))
    return path


def write_hdf5(path: Path, fields, metadata=None) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            file[name] = value
        for name, value in (metadata or {}).items():
            file[f"metadata/{name}"] = value
    return path


def write_minari(path: Path, fields, metadata=None) -> Path:
    import gymnasium
    from minari import create_dataset_from_buffers
    from minari.data_collector import EpisodeBuffer

    stops = np.flatnonzero(fields["final_observation"]) + 1
    parts = [{name: array[stop - 6 : stop] for name, array in fields.items()} for stop in stops]
    buffers = [
        EpisodeBuffer(
            id=i,
            observations=list(part["observations"]),
            actions=list(part["actions"][:-1]),
            rewards=part["rewards"][:-1].tolist(),
            terminations=part["terminals"][:-1].tolist(),
            truncations=[*[False] * 4, not part["terminals"][4]],
        )
        for i, part in enumerate(parts)
    ]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("MINARI_DATASETS_PATH", str(path.parent))
        create_dataset_from_buffers(
            path.name,
            buffers,
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32),
            action_space=gymnasium.spaces.Box(-1, 1, (2,), np.float32),
            description=json.dumps(metadata or {}),
        )
    return path


WRITERS = {"npz": ("a.npz", write_npz), "hdf5": ("a.hdf5", write_hdf5), "minari": ("a-v0", write_minari)}


def written(name: str, folder: Path, metadata=None) -> Path:
    file, write = WRITERS[name]
    return write(folder / file, arrays(), metadata)


def assert_same(dataset, other):
    for mine, theirs in zip(jax.tree.leaves(dataset), jax.tree.leaves(other), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    assert dataset.fingerprint() == other.fingerprint()
    assert dataset.spec == other.spec


def test_the_tests_know_every_format():
    assert {*WRITERS, "lerobot", "robomimic"} == FORMATS.keys()  # Those two are in test_robots.py.


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_the_contract(name):
    assert isinstance(FORMATS[name], Format)
    assert isinstance(FORMATS[name], ModuleType)
    for member in ("recognises", "read", "load", "metadata", "checksums", "recordings", "splits"):
        assert getattr(FORMATS[name], member).__doc__


@pytest.mark.parametrize("name", WRITERS)
class TestFormatsOfArrays:
    def test_recognises_its_own_alone(self, name, tmp_path):
        path = written(name, tmp_path)
        assert [other for other in FORMATS if FORMATS[other].recognises(path)] == [name]
        assert formats.find_format(path) is FORMATS[name]
        assert formats.is_data(str(path))

    def test_reads_what_was_written(self, name, tmp_path):
        found = FORMATS[name].read(written(name, tmp_path))
        for field, array in arrays().items():
            np.testing.assert_array_equal(found[field], array, err_msg=field)

    def test_loads_the_data_set_of_those_arrays(self, name, tmp_path):
        path = written(name, tmp_path)
        dataset = formats.load(path)
        assert_same(dataset, gf.Dataset.from_arrays(**arrays()))
        assert str(dataset.source) == str(path)
        assert formats.load(str(path), frame_stack=2).spec.observation_shape == (6,)
        with pytest.raises(SettingsError, match="frame_stack: expected 1 to 64, found 0"):
            formats.load(path, frame_stack=0)

    def test_is_converted_to_the_same_data_set(self, name, tmp_path):
        path = written(name, tmp_path)
        converted = gf.load_dataset(gf.convert(path, tmp_path / "converted.npz"))
        assert_same(converted, formats.load(path))

    def test_sets_no_episodes_apart(self, name, tmp_path):
        assert formats.splits(written(name, tmp_path)) == {}

    def test_knows_what_guidedflow_made(self, name, tmp_path):
        assert formats.metadata(written(name, tmp_path, METADATA)) == METADATA
        assert "made for a test" in inspect(tmp_path / WRITERS[name][0]).made_by

    def test_knows_nothing_of_others(self, name, tmp_path):
        assert formats.metadata(written(name, tmp_path)) is None
        assert inspect(tmp_path / WRITERS[name][0]).made_by == "not guidedflow: published, or your own"

    @pytest.mark.parametrize("damage", ["cut in half", "no such file", "empty", "text"])
    def test_what_is_damaged_is_one_line(self, name, damage, tmp_path):
        path = written(name, tmp_path, METADATA)
        file = path / "data" / "main_data.hdf5" if path.is_dir() else path
        if damage == "no such file":
            file.unlink()
        else:
            content = file.read_bytes()
            file.write_bytes({"cut in half": content[: len(content) // 2], "empty": b"", "text": b"a,b\n1,2\n"}[damage])
        readers = [FORMATS[name].read, FORMATS[name].load, inspect, lambda path: list(FORMATS[name].recordings(path))]
        for read in readers if path.is_dir() else [*readers, FORMATS[name].metadata]:
            with pytest.raises(DataError, match=r": expected ") as caught:
                read(path)
            assert str(caught.value).startswith(f"{path}: ")
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".hdf5", ".h5"])
def test_the_same_arrays_give_the_same_data_set_as_npz_and_as_hdf5(suffix, tmp_path):
    """The last row is a terminal: its transition is sampled in both."""
    fields = own_arrays(episodes=5)
    assert fields["terminals"][-1]
    expected = gf.Dataset.from_arrays(**fields)
    assert len(expected) == 98
    assert_same(gf.load_dataset(write_npz(tmp_path / "own.npz", fields)), expected)
    assert_same(gf.load_dataset(write_hdf5(tmp_path / f"own{suffix}", fields)), expected)


@pytest.mark.parametrize("write", [write_npz, write_hdf5])
def test_rewards_timeouts_and_the_stack_are_optional_in_both(write, tmp_path):
    fields = own_arrays()
    fields["terminals"] = fields["terminals"] | fields.pop("timeouts")
    del fields["rewards"]
    fields["observations"] = np.zeros((120, 3, 3, 1), np.uint8)
    path = write(tmp_path / ("own.npz" if write is write_npz else "own.h5"), {**fields, "frame_stack": 4})
    dataset = formats.load(path)
    assert (len(dataset), dataset.has_rewards, dataset.spec.observation_shape) == (120, False, (3, 3, 4))
    assert formats.load(path, frame_stack=2).spec.observation_shape == (3, 3, 2)


@pytest.mark.parametrize("write", [write_npz, write_hdf5])
def test_the_old_name_of_final_observations_is_read(write, tmp_path):
    fields = arrays()
    fields["finals"] = fields.pop("final_observation")
    path = write(tmp_path / ("own.npz" if write is write_npz else "own.h5"), fields)
    assert_same(formats.load(path), gf.Dataset.from_arrays(**arrays()))


@pytest.mark.parametrize("write", [write_npz, write_hdf5])
def test_dictionaries_of_vectors_are_one_vector_in_the_files_order(write, tmp_path):
    fields = own_arrays()
    observations = fields.pop("observations")
    entries = {"observations/goal/x": observations[:, :1], "observations/place": observations[:, 1:]}
    path = write(tmp_path / ("log.npz" if write is write_npz else "log.h5"), {**fields, **entries})
    dataset = formats.load(path)
    np.testing.assert_array_equal(dataset.observations, observations.astype(np.float32))
    assert dataset.spec.observation_keys == (("goal/x", (1,)), ("place", (3,)))
    with pytest.raises(
        SettingsError, match="frame_stack: expected 1 for dictionary observations without pictures, found 2"
    ):
        formats.load(path, frame_stack=2)


def test_paths_that_are_no_data(tmp_path):
    (tmp_path / "notes.csv").write_text("1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.npz").mkdir()
    for name, found in (
        ("notes.csv", "another file"),
        ("nothing", "nothing there"),
        ("folder", "a folder of other things"),
        ("folder.npz", "a folder of other things"),
    ):
        assert not formats.is_data(tmp_path / name)
        with pytest.raises(
            DataError, match=rf"{name}: expected a file that ends in .npz, .hdf5, .h5, or .*found {found}"
        ):
            formats.load(tmp_path / name)
    assert formats.metadata(tmp_path / "notes.csv") is None
    for name in ("gone.npz", "gone.h5"):
        with pytest.raises(DataError, match=rf"{name}: expected a data file, found nothing there"):
            formats.load(tmp_path / name)


def test_hdf5_metadata_that_is_no_text_is_shown_as_far_as_it_goes(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", arrays(), {"generator": "guidedflow", "algorithm": b"\xff\xfe door"})
    assert formats.metadata(path)["algorithm"].endswith(" door")


@pytest.mark.parametrize("text", ['"guidedflow"', '{"generator": "others"}', "no json"])
def test_npz_metadata_of_others_is_none(text, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(), metadata=np.array(text))
    assert formats.metadata(tmp_path / "a.npz") is None
    assert len(formats.load(tmp_path / "a.npz")) == 20


def test_inspecting_gives_returns_and_ends_of_episodes(tmp_path):
    path = written("npz", tmp_path)
    found = inspect(str(path))
    steps = arrays()["rewards"].reshape(4, 6)[:, :5]
    assert (found.transitions, found.episodes, found.episode_lengths, found.problems) == (20, 4, (5, 5), [])
    returns = steps.sum(axis=1)
    np.testing.assert_allclose(found.episode_returns[:3], (returns.min(), returns.mean(), returns.max()), rtol=1e-5)
    np.testing.assert_allclose(found.mean_reward, steps.mean(), rtol=1e-5)
    assert (found.terminal_share, found.terminal_episodes, found.success_share) == (2 / 20, 0.5, None)
    assert inspect(path, formats.load, ends_at_success=True).success_share == 0.5


@pytest.mark.parametrize("write", [write_npz, write_hdf5])
def test_inspecting_counts_the_successes_that_were_recorded(write, tmp_path):
    fields = own_arrays(episodes=5)
    fields["success"] = np.isin(np.arange(100), (3, 5, 60))
    found = inspect(write(tmp_path / ("a.npz" if write is write_npz else "a.h5"), fields))
    assert found.success_share == 2 / 5
    assert found.terminal_episodes == 3 / 5


@pytest.mark.parametrize(
    "extra", [{"success": 1.0}, {"success": np.array(["yes"] * 120)}, {"log": np.zeros(3, complex)}]
)
def test_inspecting_passes_over_what_is_none_of_its_fields(extra, tmp_path):
    found = inspect(write_npz(tmp_path / "a.npz", {**own_arrays(), **extra}))
    assert (found.transitions, found.success_share, found.problems) == (117, None, [])


@pytest.mark.parametrize("stack", ["three", [1, 2], 0])
def test_inspecting_names_a_stack_that_is_none(stack, tmp_path):
    path = write_npz(tmp_path / "a.npz", {**own_arrays(), "frame_stack": stack})
    assert inspect(path).problems == [f"{path}: frame_stack: expected 1 to 64, found {stack!r}"]


def test_inspecting_data_without_rewards(tmp_path):
    fields = own_arrays()
    del fields["rewards"]
    found = inspect(write_npz(tmp_path / "a.npz", fields))
    assert (found.mean_reward, found.episode_returns, found.transitions, found.problems) == (None, None, 117, [])


def test_a_suite_may_bring_a_format_of_its_own(tmp_path, own_dataset):
    (tmp_path / "log.parquet").write_bytes(b"columns")
    found = inspect(tmp_path / "log.parquet", lambda path: own_dataset)
    assert (found.fields, found.transitions) == ([], 117)


def test_pictures_that_an_older_convert_flattened_are_a_problem(tmp_path):
    fields = {name: array for name, array in own_arrays().items() if name != "observations"}
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (120, 4, 4, 3))
    flat = np.concatenate([rng.normal(size=(120, 2)), image.reshape(120, 48)], axis=1)
    path = gf.convert({**fields, "observations": flat}, tmp_path / "a.npz")
    with np.load(path) as archive:
        members = dict(archive)
    metadata = json.loads(str(members["metadata"]))
    metadata["spec"]["observation_keys"] = {"proprio": [2], "image": [4, 4, 3]}
    np.savez(path, **{**members, "metadata": np.array(json.dumps(metadata))})
    assert inspect(path).problems == [
        f"{path}: observations/image: expected vectors, found pictures of shape (4, 4, 3) that were made into vectors "
        "of 48 numbers; convert the data anew without image"
    ]
    metadata["spec"]["observation_keys"] = {"grid": [1, 2, 1], "image": [48]}
    np.savez(path, **{**members, "metadata": np.array(json.dumps(metadata))})
    assert inspect(path).problems == []


@pytest.mark.slow
def test_the_commands_take_every_format(tmp_path):
    for name in WRITERS:
        folder = tmp_path / name
        folder.mkdir()
        path = written(name, folder)
        shown = guidedflow("data", "inspect", path, "--json")
        assert (shown.returncode, json.loads(shown.stdout)["transitions"]) == (0, 20), shown.stderr
    fields = own_arrays()
    del fields["rewards"]
    path = write_hdf5(tmp_path / "demonstrations.h5", fields)
    small = ["--preset", "quick", "--hidden", "8", "--batch-size", "8", "--steps", "250"]
    trained = guidedflow("train", path, "--agent", "bc", *small, "--run-dir", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    refused = guidedflow("train", path, "--agent", "gfp", *small, "--run-dir", tmp_path / "other")
    assert refused.returncode == 2
    assert "demonstrations.h5: rewards: expected one a row, for GFP learns from rewards, found none" in refused.stderr
    assert not (tmp_path / "other").exists()
