import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import own_arrays

import guidedflow as gf
from guidedflow.agents import AGENTS
from guidedflow.data.dataset import ACTION_BOUND, Dataset, check_needs
from guidedflow.errors import DataError, SettingsError


def three_episodes() -> Dataset:
    """Rows 0-2 end by a terminal, rows 3-5 by a timeout, rows 6-7 by the recording's end; row i observes i."""
    rows = np.arange(8.0)
    return Dataset.from_arrays(
        observations=rows[:, None],
        actions=rows[:, None] / 10,
        rewards=rows,
        terminals=rows == 2,
        timeouts=rows == 5,
    )


def test_only_rows_with_a_next_observation_or_a_terminal_are_sampled():
    assert three_episodes().transitions.tolist() == [0, 1, 2, 3, 4, 6]


def test_next_observations_and_actions_are_the_following_rows_and_never_cross_an_episode():
    dataset = three_episodes()
    batch = dataset.rows(dataset.transitions)
    assert batch.observations[:, 0].tolist() == [0, 1, 2, 3, 4, 6]
    # Row 2 is terminal: its mask is 0, so its next observation does not matter, but it is its own episode's.
    assert batch.next_observations[:, 0].tolist() == [1, 2, 2, 4, 5, 7]
    assert batch.masks.tolist() == [1, 1, 0, 1, 1, 1]
    assert batch.rewards.tolist() == [0, 1, 2, 3, 4, 6]
    # a+ exists where the next row is a transition of the same episode: not after the terminal, nor at a last row.
    assert batch.next_action_valid.tolist() == [True, True, False, True, False, False]
    assert np.allclose(batch.next_actions[batch.next_action_valid, 0], [0.1, 0.2, 0.4])


def test_rows_may_be_named_by_a_list():
    batch = three_episodes().rows([3, 0])
    assert batch.observations[:, 0].tolist() == [3, 0]
    assert batch.next_observations[:, 0].tolist() == [4, 1]


def test_sampling_covers_exactly_the_transitions_and_depends_on_the_key_alone():
    dataset = three_episodes().to_device()
    batch = dataset.sample(jax.random.key(0), 500)
    assert set(np.asarray(batch.observations[:, 0]).tolist()) == {0, 1, 2, 3, 4, 6}
    again = dataset.sample(jax.random.key(0), 500)
    assert (batch.observations == again.observations).all()
    counts = np.unique(np.asarray(batch.observations), return_counts=True)[1]
    assert counts.min() > 50


def test_episode_bounds():
    dataset = three_episodes()
    assert dataset.episode_starts.tolist() == [0, 0, 0, 3, 3, 3, 6, 6]
    assert dataset.episode_ends.tolist() == [2, 2, 2, 5, 5, 5, 7, 7]
    assert (dataset.size, dataset.episodes) == (6, 3)


def test_types_and_rounding():
    fields = own_arrays()
    fields["actions"][3, 1] = 1.00005
    dataset = Dataset.from_arrays(**fields)
    assert dataset.observations.dtype == dataset.actions.dtype == dataset.rewards.dtype == np.float32
    assert dataset.actions[3, 1] == np.float32(1 - 1e-5)  # As in the authors' code.
    fields["observations"] = np.zeros((120, 2, 2, 3), np.uint8)
    assert Dataset.from_arrays(**fields).observations.dtype == np.uint8
    fields["terminals"] = fields["terminals"][:, None].astype(np.float32)
    assert Dataset.from_arrays(**fields).transitions.tolist() == dataset.transitions.tolist()


def test_the_fingerprint_tells_data_apart():
    fields = own_arrays()
    before = Dataset.from_arrays(**fields).fingerprint()
    assert Dataset.from_arrays(**fields).fingerprint() == before
    assert Dataset.from_arrays(**fields).to_device().fingerprint() == before
    fields["rewards"][7] += 1
    assert Dataset.from_arrays(**fields).fingerprint() != before


def saturated(pictures: bool, frame_stack: int = 1) -> Dataset:
    rows = np.arange(40)
    seen = (np.arange(40 * 12).reshape(40, 2, 2, 3) % 251).astype(np.uint8)
    return Dataset.from_arrays(
        observations=seen if pictures else np.sin(rows)[:, None] * [1.0, 2.0],
        actions=np.clip(np.cos(rows)[:, None] * [1.5, -0.5], -1, 1),
        rewards=rows / 40,
        terminals=rows % 10 == 9,
        frame_stack=frame_stack,
    )


def test_the_fingerprint_knows_how_many_frames_are_stacked():
    once, thrice = saturated(True).fingerprint(), saturated(True, 3).fingerprint()
    assert once != thrice
    assert saturated(True, 3).matches(thrice)
    assert not saturated(True).matches(thrice)


@pytest.mark.parametrize(
    ("arguments", "before"),
    [((False,), "26f68183bbe0591e"), ((True,), "fccb70d69d44a524"), ((True, 3), "fccb70d69d44a524")],
)
def test_fingerprints_of_commit_20933e8_still_match_their_data(arguments, before):
    """That left out the stack of frames, and clipped actions to 1."""
    dataset = saturated(*arguments)
    assert dataset.actions.max() == np.float32(ACTION_BOUND)
    assert dataset.matches(before)
    assert dataset.to_device().matches(before)
    other = jnp.asarray(dataset.rewards).at[3].set(7)
    assert not Dataset.from_rows(
        dataset.observations,
        dataset.actions,
        np.asarray(other),
        masks=dataset.masks,
        ends=np.arange(40) % 10 == 9,
        keep_last=np.arange(40) % 10 == 9,
        source="other",
    ).matches(before)


def test_data_without_rewards_serves_the_algorithms_that_need_none():
    fields = own_arrays()
    del fields["rewards"]
    dataset = Dataset.from_arrays(**fields, source="demonstrations.npz")
    assert not dataset.has_rewards
    assert not dataset.rewards.any()
    assert not dataset.to_device().has_rewards
    _, metrics = gf.fit(gf.make_agent("bc", dataset.spec, hidden=(8,), flow_steps=1), dataset, steps=3, batch_size=8)
    assert np.isfinite(metrics["flow_loss"]).all()
    needing = [name for name in AGENTS if name != "bc"]
    for name in needing:
        with pytest.raises(DataError, match=r"demonstrations.npz: rewards: expected one a row, for .* found none; add"):
            check_needs(AGENTS[name], dataset)
    check_needs(AGENTS[needing[0]], Dataset.from_arrays(**own_arrays()))


def test_a_run_on_data_without_rewards_is_refused_before_its_folder_is_made(tmp_path):
    fields = own_arrays()
    del fields["rewards"]
    with pytest.raises(DataError, match=r"rewards: expected one a row, for IQL learns from rewards, found none"):
        gf.train(
            dataset=Dataset.from_arrays(**fields), agent="iql", steps=250, run_dir=tmp_path / "run", progress=False
        )
    assert list(tmp_path.iterdir()) == []


def test_length_and_repr(own_dataset):
    assert len(own_dataset) == own_dataset.size == 117
    assert repr(own_dataset) == "Dataset(117 transitions in 6 episodes from arrays: observations float32 4, actions 2)"
    fields = own_arrays() | {"observations": np.zeros((120, 4, 5, 3), np.uint8), "rewards": None}
    named = Dataset.from_arrays(**fields, frame_stack=2, source="here.npz")
    assert repr(named) == (
        "Dataset(117 transitions in 6 episodes from here.npz: observations uint8 4 x 5 x 6, actions 2, no rewards)"
    )
    assert str(named.source) == "here.npz"
    seen = []
    jax.jit(lambda dataset: seen.append(repr(dataset)))(own_dataset)
    assert seen == ["Dataset(117 transitions)"]


def test_data_of_one_shape_from_two_files_shares_its_programs():
    compiled = []

    @jax.jit
    def total(dataset):
        compiled.append(dataset)
        return dataset.rewards.sum()

    for source in ("a.npz", "b.npz"):
        total(Dataset.from_arrays(**own_arrays(), source=source))
    assert len(compiled) == 1


def test_stacks_are_chosen_afterwards_too(own_dataset):
    assert own_dataset.with_frame_stack(2).spec.observation_shape == (8,)
    with pytest.raises(SettingsError, match=r"arrays: frame_stack: expected 1 to 64, found 65"):
        own_dataset.with_frame_stack(65)


def broken(name, value):
    def change(fields):
        fields[name] = value(fields[name])

    return change


def no_end(fields):
    fields["terminals"] = np.zeros(120)
    fields["timeouts"] = np.zeros(120)


def nan_in_row_17(array):
    array = array.copy()
    array[17] = np.nan
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken("observations", nan_in_row_17), r"observations: expected finite numbers .*, found nan in row 17"),
        (broken("rewards", lambda a: np.where(a == a[4], np.inf, a)), r"rewards: .* found inf in row 4"),
        (broken("actions", lambda a: a * 3), r"actions: expected values in \[-1, 1\], found .* first in row 2"),
        (broken("actions", lambda a: a[:, 0]), r"actions: expected shape \(N, action size\), found \(120,\)"),
        (broken("rewards", lambda a: a[:-1]), r"rewards: expected 120 rows as in observations, found 119"),
        (broken("rewards", lambda a: np.stack([a, a], 1)), r"rewards: expected shape \(N,\), found \(120, 2\)"),
        (broken("terminals", lambda a: a * 2), r"terminals: expected 0 or 1, found 2 in row 19"),
        (broken("observations", lambda a: a * 1e300), r"observations: .* of float32's range, found .* in row 0"),
        (broken("terminals", lambda a: None), r"terminals: expected 0 or 1 a row, found none; give zeros if no step"),
        (broken("actions", lambda a: np.full(a.shape, -128, np.int8)), r"actions: .* found 128 at most"),
        (broken("actions", lambda a: [[0.0], *a[1:].tolist()]), r"actions: expected numbers in rows of one length"),
        (broken("observations", lambda a: a.astype(str)), r"observations: expected numbers, found dtype <U"),
        (broken("observations", lambda a: a[:, :0]), r"observations: expected shape"),
        (broken("timeouts", lambda a: np.ones_like(a)), r"expected at least one transition"),
        (no_end, r"expected terminals or timeouts at the last row of each episode, found none in 120 rows"),
    ],
)
def test_broken_fields_are_named(change, message):
    fields = own_arrays()
    fields["terminals"] = fields["terminals"].astype(float)
    change(fields)
    if "at least one" in message:
        fields["terminals"] = np.zeros(120)
    with pytest.raises(DataError, match=message) as error:
        Dataset.from_arrays(**fields, source="mine.npz")
    assert str(error.value).startswith("mine.npz: ")
    assert "\n" not in str(error.value)


def test_a_final_observation_is_seen_but_not_acted_in():
    """Rows 0 and 1 are steps, row 2 is what the second one led to; rows 3 and 4 the same, ended by a terminal."""
    rows = np.arange(6.0)
    dataset = Dataset.from_arrays(
        observations=rows[:, None],
        actions=rows[:, None] / 10,
        rewards=rows,
        terminals=rows == 4,
        final_observation=np.isin(rows, (2, 5)),
    )
    batch = dataset.rows(dataset.transitions)
    assert batch.observations[:, 0].tolist() == [0, 1, 3, 4]
    assert batch.next_observations[:, 0].tolist() == [1, 2, 4, 5]
    assert batch.masks.tolist() == [1, 1, 1, 0]
    assert batch.next_action_valid.tolist() == [True, False, True, False]


def test_no_data_at_all():
    with pytest.raises(DataError, match=r"expected at least one transition.*found no rows"):
        Dataset.from_arrays(np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0), np.zeros(0))
