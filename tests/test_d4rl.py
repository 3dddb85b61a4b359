"""D4RL on today's MuJoCo: the environments against real data, and the reader against D4RL's rules."""

import re
from pathlib import Path

import gymnasium
import h5py
import mujoco
import numpy as np
import pytest
from conftest import SHARED, make_env
from gymnasium.utils.env_checker import check_env

import guidedflow as gf
from guidedflow.data.download import verify_hdf5
from guidedflow.data.formats import hdf5
from guidedflow.data.inspect import inspect
from guidedflow.errors import DataError, GuidedflowError, SettingsError
from guidedflow.suites import find_task, tasks
from guidedflow.suites.d4rl import files
from guidedflow.suites.d4rl.antmaze import GOAL_RADIUS, MAZES
from guidedflow.suites.d4rl.download import BASES, name_on_server

needs_shared = pytest.mark.skipif(SHARED is None, reason="needs the recordings and policies of ../shared/data")
HANDS = ("door", "hammer", "pen", "relocate")


def expert(hand: str):
    """The mean action of the policy behind D4RL's expert data."""
    p = dict(np.load(SHARED / "data" / f"{hand}_policy.npz"))

    def act(observation):
        x = (observation - p["in_shift"]) / (p["in_scale"] + 1e-8)
        hidden = np.tanh(p["w1"] @ np.tanh(p["w0"] @ x + p["b0"]) + p["b1"])
        return np.clip((p["w2"] @ hidden + p["b2"]) * p["out_scale"] + p["out_shift"], -1, 1).astype(np.float32)

    return act


def mean_return(env, act, episodes=20):
    returns = []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        returns.append(0.0)
        over = False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(act(observation))
            returns[-1] += reward
            over = terminated or truncated
    return np.mean(returns)


@pytest.mark.slow
@needs_shared
def test_replaying_the_human_door_demonstrations_gives_the_stored_replays():
    data = dict(np.load(SHARED / "data" / "door_human.npz"))
    env = make_env(find_task("door-human-v1"))
    env.reset(seed=0)
    inner = env.unwrapped
    firsts = np.flatnonzero(np.concatenate([[True], (data["terminals"] | data["timeouts"])[:-1]]))
    assert len(firsts) == 25
    returns = []
    for first, end in zip(firsts, [*firsts[1:], len(data["actions"])], strict=True):
        env.reset()  # Its time limit is shorter than a demonstration, so the steps below go past it.
        state = {name: data[name][first].astype(np.float64) for name in ("qpos", "qvel", "door_body_pos")}
        inner.set_env_state(state)
        observation = inner._get_obs()
        rewards = []
        for i in range(first, end):
            if i - first < 50:
                np.testing.assert_allclose(observation, data["obs_replay"][i], atol=1e-3)
            observation, reward, *_ = env.env.env.step(data["actions"][i])
            rewards.append(reward)
            if i - first < 50:
                assert abs(reward - data["rew_replay_d4rl"][i]) < 1e-3
                sign = reward + 0.2 * np.linalg.norm(observation[35:38])
                assert abs(sign - data["rew_replay_grv1"][i]) < 1e-3
        returns.append(sum(rewards))
    stored = data["rew_replay_d4rl"].sum() / 25
    assert abs(np.mean(returns) / stored - 1) < 0.01


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize(
    ("hand", "low", "high"), [("door", 95, 110), ("hammer", 105, 135), ("relocate", 90, 110), ("pen", 75, 120)]
)
def test_the_experts_score_as_published(hand, low, high):
    task = find_task(f"{hand}-expert-v1")
    assert low <= task.suite.score(task, 0.0, mean_return(make_env(task), expert(hand))) <= high


@pytest.mark.slow
@pytest.mark.parametrize("hand", HANDS)
def test_random_actions_score_nothing(hand):
    task = find_task(f"{hand}-cloned-v1")
    env = make_env(task)
    rng = np.random.default_rng(0)
    found = mean_return(env, lambda _: rng.uniform(-1, 1, env.action_space.shape).astype(np.float32))
    assert abs(task.suite.score(task, 0.0, found)) < (5 if hand == "pen" else 3)


def test_pen_ends_when_it_is_dropped_and_all_have_d4rls_limits():
    limits = {hand: make_env(find_task(f"{hand}-human-v1")).spec.max_episode_steps for hand in HANDS}
    assert limits == {"door": 200, "hammer": 200, "pen": 100, "relocate": 200}
    env = make_env(find_task("pen-human-v1"))
    rng = np.random.default_rng(1)
    lengths = []
    for seed in range(5):
        env.reset(seed=seed)
        lengths.append(0)
        terminated = truncated = False
        while not (terminated or truncated):
            _, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 24).astype(np.float32))
            lengths[-1] += 1
        assert terminated == (env.unwrapped.data.xpos[env.unwrapped.obj_body_id][2] < 0.075)
        if terminated:
            assert reward < -4  # The penalty for dropping it is in the reward once.
    assert min(lengths) < 100


@pytest.mark.parametrize(
    "name", [*(f"antmaze-{m}-v2" for m in ("umaze", "medium-play", "large-diverse")), "pen-human-v1"]
)
def test_gymnasiums_checker_passes(name):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of infinite bounds, which D4RL's spaces have.
        check_env(make_env(find_task(name)).env, skip_render_check=True)


def test_the_ant_moves_as_ogbenchs_in_an_open_field():
    from ogbench.locomaze.ant import AntEnv

    env, other = make_env(find_task("antmaze-large-play-v2")).unwrapped, AntEnv(render_mode=None)
    other.reset(seed=0)
    for ant in (env, other):
        ant.set_state(other.init_qpos, other.init_qvel)
    rng = np.random.default_rng(0)
    for _ in range(200):
        action = rng.uniform(-1, 1, 8).astype(np.float32)
        np.testing.assert_array_equal(env.step(action)[0], other.step(action)[0])
    assert np.abs(env.data.qpos[:2]).max() > 0.1


@pytest.mark.parametrize("name", list(MAZES))
def test_antmaze_geometry(name):
    maze = MAZES[name]
    assert len({len(row) for row in maze.rows}) == 1
    assert maze.rows[1][1] == "R"
    goal = next((i, row.index("G")) for i, row in enumerate(maze.rows) if "G" in row)
    assert maze.goal == (4.0 * (goal[1] - 1), 4.0 * (goal[0] - 1))
    task = find_task("antmaze-umaze-v2" if name == "umaze" else f"antmaze-{name}-play-v2")
    env = make_env(task)
    assert env.spec.max_episode_steps == (700 if name == "umaze" else 1000)
    model = env.unwrapped.model
    walls = [model.geom(i) for i in range(model.ngeom) if model.geom(i).name.startswith("wall_")]
    assert len(walls) == sum(row.count("#") for row in maze.rows)
    for wall in walls:
        i, j = map(int, re.findall(r"\d+", wall.name))
        np.testing.assert_allclose(wall.pos, [(j - 1) * 4, (i - 1) * 4, 1])
        np.testing.assert_allclose(wall.size, [2, 2, 1])


def test_antmaze_starts_goals_and_success():
    env = make_env(find_task("antmaze-medium-diverse-v2")).unwrapped
    starts, goals = [], []
    for seed in range(300):
        observation, _ = env.reset(seed=seed)
        starts.append(observation - np.concatenate([env.init_qpos, env.init_qvel]))
        goals.append(env.goal)
    starts, goals = np.array(starts), np.array(goals)
    assert np.abs(starts[:, :15]).max() <= 0.1
    assert 0.055 < starts[:, :15].std() < 0.06  # Uniform on [-0.1, 0.1]: 0.0577.
    assert 0.095 < starts[:, 15:].std() < 0.105
    assert goals.min() >= 20
    assert goals.max() <= 21.5
    np.testing.assert_allclose(goals.mean(0), 20.75, atol=0.06)
    np.testing.assert_allclose(goals.std(0), np.sqrt((1 + 0.25) / 12), atol=0.03)
    for distance, reached in ((GOAL_RADIUS - 0.02, True), (GOAL_RADIUS + 0.02, False)):
        env.reset(seed=0)
        qpos = env.init_qpos.copy()
        qpos[:2] = env.goal - np.array([distance, 0.0])
        env.set_state(qpos, env.init_qvel)
        _, reward, terminated, _, info = env.step(np.zeros(8, np.float32))
        after = np.linalg.norm(env.data.qpos[:2] - env.goal)
        assert (after <= GOAL_RADIUS) == reached
        assert (reward, terminated, info["success"]) == (float(reached), reached, float(reached))


def test_the_contact_rule_is_the_one_of_the_published_numbers():
    """Two spheres with margins a and b touch when their gap is below max(a, b), not a + b."""
    xml = """<mujoco><worldbody>
      <body><freejoint/><geom type="sphere" size="0.1" margin="0.01"/></body>
      <body pos="0.215 0 0"><freejoint/><geom type="sphere" size="0.1" margin="0.01"/></body>
    </worldbody></mujoco>"""
    model = mujoco.MjModel.from_xml_string(xml)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert data.ncon == 0


def write(path: Path, drop=(), **changes):
    rows = np.arange(8.0)
    fields = {
        "observations": np.tile(rows[:, None], (1, 3)),
        "actions": np.zeros((8, 2)),
        "rewards": rows,
        "terminals": (rows == 2) | (rows == 4),
        "timeouts": (rows == 4) | (rows == 6),
        **changes,
    }
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            if name not in drop:
                file[name] = value
        file["infos/qpos"] = np.zeros((8, 1))
    return path


def test_d4rls_transitions(tmp_path):
    path = write(tmp_path / "a.hdf5", rewards=np.arange(8.0)[:, None], terminals=np.float32(np.arange(8) == 2))
    dataset = files.load(path)
    # Every row but those that timed out (4, 6) and the last one.
    assert dataset.transitions.tolist() == [0, 1, 2, 3, 5]
    batch = dataset.rows(dataset.transitions)
    assert batch.masks.tolist() == [1, 1, 0, 1, 1]
    assert batch.next_observations[:, 0].tolist() == [1, 2, 2, 4, 6]  # Behind a terminal the mask is 0.
    assert batch.rewards.tolist() == [0, 1, 2, 3, 5]


def test_antmaze_goes_on_after_a_terminal_and_shifts_its_rewards(tmp_path):
    shapes = {"observations": np.tile(np.arange(8.0)[:, None], (1, 29)), "actions": np.zeros((8, 8))}
    write(tmp_path / "antmaze-umaze-v2.hdf5", **shapes)
    dataset = gf.load_dataset("antmaze-umaze-v2", tmp_path)
    assert dataset.transitions.tolist() == [0, 1, 2, 3, 5]
    batch = dataset.rows(dataset.transitions)
    assert batch.next_observations[:, 0].tolist() == [1, 2, 3, 4, 6]
    assert batch.masks.tolist() == [1, 1, 0, 1, 1]
    assert batch.rewards.tolist() == [-1, 0, 1, 2, 4]
    assert batch.rewards.dtype == np.float32


def test_antmaze_is_learned_with_the_same_rewards_online_as_from_data(tmp_path):
    """What the environment says goes through the function that the data went through."""
    task = find_task("antmaze-umaze-v2")
    env = make_env(task)
    env.reset(seed=0)
    said = [env.step(np.zeros(8, np.float32))[1]]
    inner = env.unwrapped
    qpos = inner.init_qpos.copy()
    qpos[:2] = inner.goal
    inner.set_state(qpos, inner.init_qvel)
    said.append(env.step(np.zeros(8, np.float32))[1])
    assert said == [0.0, 1.0]
    online = [task.suite.training_reward(task, reward) for reward in said]
    rows = np.arange(8)
    flags = {"rewards": np.float32(rows == 3), "terminals": rows == 3, "timeouts": rows == 7}
    shapes = {"observations": np.zeros((8, 29)), "actions": np.zeros((8, 8))}
    write(tmp_path / "antmaze-umaze-v2.hdf5", **shapes, **flags)
    assert set(gf.load_dataset("antmaze-umaze-v2", tmp_path).rewards.tolist()) == set(online) == {-1.0, 0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop": ("timeouts",)}, r"a.hdf5: expected the fields observations, .*timeouts, found actions, infos"),
        ({"rewards": np.full(8, np.nan)}, r"a.hdf5: rewards: expected finite numbers"),
        ({"actions": np.zeros((7, 2))}, r"a.hdf5: actions: expected 8 rows as in observations, found 7"),
        ({"timeouts": np.ones(8)}, r"a.hdf5: expected at least one transition"),
        ({"terminals": np.arange(8) / 8}, r"a.hdf5: terminals: expected 0 or 1, found 0.125 in row 1"),
        ({"timeouts": np.arange(8)}, r"a.hdf5: timeouts: expected 0 or 1, found 2 in row 2"),
        ({"timeouts": np.zeros(9)}, r"a.hdf5: timeouts: expected 8 rows as in observations, found 9"),
        (
            {"timeouts": np.zeros(8), "terminals": np.zeros(8)},
            r"a.hdf5: expected terminals or timeouts at the last row of each episode, found none in 8 rows",
        ),
    ],
)
def test_malformed_files(options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        files.load(write(tmp_path / "a.hdf5", **options))


def test_an_antmaze_file_in_which_only_goals_are_marked_has_no_episodes(tmp_path):
    path = write(tmp_path / "a.hdf5", timeouts=np.zeros(8))
    assert files.load(path).episodes == 3
    with pytest.raises(DataError, match=r"a.hdf5: expected terminals or timeouts .*, found none in 8 rows"):
        files.load(path, ends_at_terminals=False)


def test_a_terminal_that_stays_on_ends_an_episode_in_each_of_its_rows_save_in_antmaze(tmp_path):
    path = write(tmp_path / "a.hdf5", terminals=(np.arange(8) >= 2) & (np.arange(8) <= 4))
    dataset = files.load(path)
    assert np.unique(dataset.episode_ends).tolist() == [2, 3, 4, 6, 7]
    assert dataset.rows(np.array([2, 3])).masks.tolist() == [0, 0]
    assert np.unique(files.load(path, ends_at_terminals=False).episode_ends).tolist() == [4, 6, 7]


@pytest.mark.slow
def test_a_file_of_ones_own_is_trained_on(tmp_path):
    small = {"hidden": (12,), "flow_steps": 1, "steps": 10, "log_every": 10, "save_every": 10, "batch_size": 4}
    run = gf.train(write(tmp_path / "own.hdf5"), run_dir=tmp_path / "run", **small)
    assert gf.resume(run.path).summary["steps"] == 10


def test_a_file_is_inspected(tmp_path):
    report = inspect(write(tmp_path / "a.hdf5"))
    assert (report.transitions, report.episodes, report.problems) == (6, 4, [])  # By no task's rules.
    assert [field.name for field in report.fields] == list(hdf5.FIELDS)
    report = inspect(write(tmp_path / "b.hdf5", rewards=np.full(8, np.inf)))
    assert re.search(r"b.hdf5: rewards: expected finite numbers", report.problems[0])


def test_files_that_are_not_whole(tmp_path):
    path = write(tmp_path / "a.hdf5", observations=np.random.default_rng(0).normal(size=(8, 5000)))
    verify_hdf5(path)
    path.write_bytes(path.read_bytes()[:3000])
    for check in (lambda: hdf5.read(path), lambda: verify_hdf5(path)):
        with pytest.raises(GuidedflowError, match=r"a.hdf5: expected a whole HDF5 file, found"):
            check()
    path.write_text("<html>")
    with pytest.raises(DataError, match=r"a.hdf5: expected a whole HDF5 file, found"):
        hdf5.read(path)
    with pytest.raises(DataError, match=r"b.hdf5: expected a data file, found nothing there"):
        hdf5.read(tmp_path / "b.hdf5")


def test_where_the_files_are_published():
    names = {task.id: name_on_server(task.dataset) for task in tasks() if task.suite.name == "d4rl"}
    assert len(set(names.values())) == 18
    assert names["pen-cloned-v1"] == "hand_dapg_v1/pen-cloned-v1.hdf5"
    noisy = "ant_maze_v2/Ant_maze_{}_noisy_multistart_{}_multigoal_{}_sparse_fixed.hdf5"
    assert names["antmaze-umaze-v2"] == noisy.format("u-maze", "False", "False")
    assert names["antmaze-umaze-diverse-v2"] == noisy.format("u-maze", "True", "True")
    assert names["antmaze-large-play-v2"] == noisy.format("hardest-maze", "True", "False")
    assert all(base.endswith("/") for base in BASES)


@pytest.mark.slow
@needs_shared
def test_a_d4rl_task_is_trained_on_and_scored(tmp_path):
    data = dict(np.load(SHARED / "data" / "door_human.npz"))
    with h5py.File(tmp_path / "door-human-v1.hdf5", "w") as file:
        for name in hdf5.FIELDS:
            file[name] = data[name][:1000]
    run = gf.train(
        "door-human-v1",
        data_dir=tmp_path,
        run_dir=tmp_path / "run",
        hidden=(12,),
        flow_steps=1,
        steps=20,
        log_every=10,
        save_every=20,
        batch_size=16,
        eval_episodes=2,
    )
    for row in run.summary["results"]:
        expected = 100 * (row["mean_return"] + 56.512833) / (2880.5693087298737 + 56.512833)
        assert abs(row["score"] - expected) < 1e-6
        assert row["mean_length"] == 200
    with h5py.File(tmp_path / "pen-human-v1.hdf5", "w") as file:
        for name in hdf5.FIELDS:
            file[name] = data[name][:1000]
    with pytest.raises(DataError, match=r"pen-human-v1.hdf5: observations: expected \(45,\) a row, .*found \(39,\)"):
        gf.load_dataset("pen-human-v1", tmp_path)


def test_registered_under_this_projects_namespace():
    make_env(find_task("antmaze-umaze-v2"))
    make_env(find_task("door-human-v1"))
    ours = {name for name in gymnasium.registry if name.startswith("guidedflow/")}
    assert ours == {task.environment for task in tasks() if task.suite.name == "d4rl"}


@needs_shared
def test_the_human_demonstrations_are_written_as_d4rl_has_them(tmp_path):
    source = SHARED / "data" / "door_human.npz"
    path = gf.generate("door-human-v1", policy=source, data_dir=tmp_path)[0]
    stored, written = dict(np.load(source)), hdf5.read(path)
    for name in hdf5.FIELDS:
        np.testing.assert_array_equal(written[name], stored[name])
    assert gf.load_dataset("door-human-v1", tmp_path).size == 6729 - 25
    assert hdf5.metadata(path)["algorithm"] == "human of door_human.npz"
    with pytest.raises(DataError, match=r"door-human-v1.hdf5: expected a new file, found one that exists"):
        gf.generate("door-human-v1", policy=source, data_dir=tmp_path)[0]
    folder = gf.generate("D4RL/door/human-v2", policy=source, data_dir=tmp_path)[0]
    assert inspect(folder).problems == []
    # Minari keeps where the last step led to, which was not recorded: a step less in each demonstration.
    assert gf.load_dataset("D4RL/door/human-v2", tmp_path).size == 6729 - 25


@needs_shared
@pytest.mark.parametrize("task", ["pen-expert-v1", "D4RL/relocate/expert-v2"])
def test_expert_data_is_made_with_the_policies_noise_and_repeats_itself(task, tmp_path):
    hand = "pen" if task.startswith("pen") else "relocate"
    policy = SHARED / "data" / f"{hand}_policy.npz"
    for folder in "ab":
        gf.generate(task, policy=policy, data_dir=tmp_path / folder, episodes=3)
    first, second = (gf.load_dataset(task, tmp_path / folder) for folder in "ab")
    assert first.fingerprint() == second.fingerprint()
    assert 150 < first.size <= 600
    batch = first.rows(first.transitions)
    noise = np.asarray(batch.actions) - np.stack([expert(hand)(o) for o in np.asarray(batch.observations)])
    inside = np.abs(np.asarray(batch.actions)) < 0.999
    spread = np.exp(np.load(policy)["log_std"])
    assert 0.8 < (noise / spread)[inside].std() < 1.1
    with pytest.raises(DataError, match=r"_policy.npz: w0: expected shape"):
        gf.generate(task, policy=SHARED / "data" / "hammer_policy.npz", data_dir=tmp_path / "c", episodes=1)
    with pytest.raises(DataError, match=r"door_human.npz: expected a policy's fields .*found no w0"):
        gf.generate(task, policy=SHARED / "data" / "door_human.npz", data_dir=tmp_path / "c", episodes=1)
    assert not (tmp_path / "c").exists()


def test_demonstrations_without_ends_are_one_line(tmp_path):
    rows = {"observations": np.zeros((9, 39)), "actions": np.zeros((9, 28)), "rewards": np.zeros(9)}
    np.savez(tmp_path / "door.npz", **rows, terminals=np.zeros(9), timeouts=np.zeros(9))
    for task in ("D4RL/door/human-v2", "door-human-v1"):
        with pytest.raises(DataError, match=r"door.*: expected terminals or timeouts at the last row of each episode"):
            gf.generate(task, policy=tmp_path / "door.npz", data_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_only_adroits_expert_and_human_data_comes_from_a_file(tmp_path):
    for task in ("door-cloned-v1", "antmaze-umaze-v2", "D4RL/door/cloned-v2"):
        with pytest.raises(SettingsError, match=f"expected an expert or human task of Adroit, found {task}"):
            gf.generate(task, policy=tmp_path / "policy.npz", data_dir=tmp_path)
