"""Runs made by an earlier version, commit 20933e8, still load, evaluate, go on and are reported.

The archive holds a sweep of GFP and a run of ReBRAC, both killed at step 30 of 40, whose last checkpoint is at step
20; the data they were trained on; and what their policies answered then to four observations.
"""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

import guidedflow as gf

ARCHIVE = Path(__file__).parent / "data" / "runs_of_20933e8.tar.gz"
ALPHAS = [(("alpha", 1.0),), (("alpha", 0.3),)]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def old(unpacked, tmp_path) -> Path:
    shutil.copytree(unpacked, tmp_path / "old")
    return tmp_path / "old"


def test_their_settings_and_records_are_read(old):
    folder = gf.RunFolder(old / "gfp")
    config = folder.config()
    assert (config.task, config.agent, config.sweep) == ("door-expert-v1", "gfp", {"alpha": (1.0, 0.3)})
    assert [row["variant"] for row in folder.evaluations()] == [ALPHAS[0]] * 2 + [ALPHAS[1]] * 2
    assert {row["source"] for row in folder.evaluations()} == {"training"}
    assert [row["step"] for row in folder.metrics()] == [10, 10, 20, 20, 30, 30]


@pytest.mark.parametrize(("name", "variant"), [("gfp", {"alpha": 0.3}), ("rebrac", None)])
def test_their_policies_act_as_they_did(old, name, variant):
    policy = gf.load_policy(old / name, variant=variant)
    observations = np.random.default_rng(1).normal(size=(4, 39)).astype(np.float32)
    actions = np.stack([policy(observation) for observation in observations])
    np.testing.assert_allclose(actions, np.load(old / f"{name}-actions.npy"), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gfp", "rebrac"])
def test_they_go_on_and_their_evaluations_are_repeated(old, name):
    before = gf.RunFolder(old / name).evaluations()
    again = gf.evaluate(old / name, progress=False)
    for old_row, new_row in zip(before, again, strict=True):
        assert (old_row["policy"], old_row["variant"]) == (new_row["policy"], new_row["variant"])
        np.testing.assert_allclose(new_row["mean_return"], old_row["mean_return"], rtol=1e-3)
    run = gf.resume(old / name, data_dir=old, progress=False)
    assert {row["step"] for row in run.results} == {40}
    assert gf.RunFolder(run.path).is_finished()


def test_they_are_reported_and_compared(old):
    report = gf.report([old / "gfp", old / "rebrac"], old / "report")
    assert "door" in (report.path / "table.md").read_text()
    assert gf.compare(old / "gfp", old / "rebrac").differences
