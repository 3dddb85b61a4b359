"""Small recordings of robots, in the layouts of LeRobot and robomimic, and what went into them."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FPS = 10
TEXTS = ("reach the cube", "push the block")
TABLE = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"


def steps(lengths: Sequence[int], seed: int = 0) -> dict[str, np.ndarray]:
    """Steps of episodes: every second one succeeds in its last step but one and stays so, the others are cut off."""
    rng, n = np.random.default_rng(seed), sum(lengths)
    frame = np.concatenate([np.arange(length) for length in lengths])
    episode = np.repeat(np.arange(len(lengths)), lengths)
    to_go = np.repeat(lengths, lengths) - frame
    shades = np.arange(n) * 37 % 200 + 20
    return {
        "state": rng.normal(size=(n, 3)).astype(np.float32),
        "action": rng.uniform([-2, 0], [2, 10], (n, 2)).astype(np.float32),
        "reward": rng.normal(size=n).astype(np.float32),
        "success": (to_go <= 2) & (episode % 2 == 0),
        "done": to_go == 1,
        "front": np.broadcast_to(shades[:, None, None, None], (n, 16, 24, 3)).astype(np.uint8),
        "episode": episode,
        "frame": frame,
    }


def write_lerobot(
    path: Path,
    lengths: Sequence[int] = (5, 4, 6),
    *,
    camera: str | None = "video",
    outcomes: Sequence[str] = ("reward", "success", "done"),
    task: Sequence[int] | None = None,
) -> dict[str, np.ndarray]:
    """A LeRobot data set of version 3, and what went into it.

    Args:
        path: its new folder.
        lengths: of its episodes.
        camera: how pictures are kept, ``video`` or ``image``; None: there are none.
        outcomes: which of next.reward, next.success and next.done there are.
        task: the task of each frame; None: the first.
    """
    truth = steps(lengths)
    truth["task"] = np.zeros(len(truth["frame"]), int) if task is None else np.asarray(task)
    features: dict[str, Any] = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": None},
        "action": {"dtype": "float32", "shape": [2], "names": None},
    }
    kinds = {"reward": "float32", "success": "bool", "done": "bool"}
    features |= {f"next.{name}": {"dtype": kinds[name], "shape": [1], "names": None} for name in outcomes}
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        kind = "float32" if name == "timestamp" else "int64"
        features[name] = {"dtype": kind, "shape": [1], "names": None}
    if camera:
        features["observation.images.front"] = {"dtype": camera, "shape": [16, 24, 3], "names": None}
    (path / "meta").mkdir(parents=True)
    rows = []
    for first in range(0, len(lengths), 2):
        rows += _write_file(path, truth, lengths, first, features)
    write_table(path / EPISODES, {name: [row[name] for row in rows] for name in rows[0]})
    write_table(path / "meta/tasks.parquet", {"task_index": [0, 1], "__index_level_0__": list(TEXTS)})
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "splits": {"train": f"0:{len(lengths) - 1}", "valid": f"{len(lengths) - 1}:{len(lengths)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if camera else None,
        "features": features,
    }
    (path / "meta/info.json").write_text(json.dumps(info))
    return truth


def _write_file(
    path: Path, truth: dict[str, np.ndarray], lengths: Sequence[int], first: int, features: dict[str, Any]
) -> list[dict[str, Any]]:
    """Two episodes as one table and one video, and their rows of meta/episodes."""
    number = first // 2
    at = np.flatnonzero(truth["episode"] // 2 == number)
    columns: dict[str, Any] = {
        "observation.state": fixed(truth["state"][at]),
        "action": fixed(truth["action"][at]),
        "timestamp": (truth["frame"][at] / FPS).astype(np.float32),
        "frame_index": truth["frame"][at],
        "episode_index": truth["episode"][at],
        "index": at,
        "task_index": truth["task"][at],
    }
    columns |= {f"next.{n}": truth[n][at] for n in ("reward", "success", "done") if f"next.{n}" in features}
    camera = features.get("observation.images.front", {}).get("dtype")
    if camera == "image":
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        values = [{"bytes": png(picture), "path": "frame.png"} for picture in truth["front"][at]]
        columns["observation.images.front"] = pa.array(values, kind)
    if camera == "video":
        write_video(path / VIDEO.replace("file-000", f"file-{number:03d}"), truth["front"][at])
    write_table(path / TABLE.replace("file-000", f"file-{number:03d}"), columns)
    rows, begin = [], 0.0
    for episode in range(first, min(first + 2, len(lengths))):
        row = {"episode_index": episode, "length": lengths[episode], "data/chunk_index": 0, "data/file_index": number}
        if camera == "video":
            where = {"chunk_index": 0, "file_index": number, "from_timestamp": begin}
            row |= {f"videos/observation.images.front/{name}": value for name, value in where.items()}
        rows.append(row)
        begin += lengths[episode] / FPS
    return rows


def fixed(values: np.ndarray) -> pa.Array:
    """Vectors as a column of lists of one length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def write_table(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def read_table(path: Path) -> dict[str, Any]:
    table = pq.ParquetFile(path).read()
    return {name: table.column(name) for name in table.column_names}


def write_video(path: Path, pictures: np.ndarray, fps: int = FPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", fps, {"crf": "10", "g": "2"})
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())


def png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def write_robomimic(
    path: Path, lengths: Sequence[int] = (5, 4, 6), *, shaped: bool = False, has_next: bool = True
) -> dict[str, np.ndarray]:
    """A file of robomimic whose demonstrations are numbered 0, 2, 10, ..., and what went into it."""
    truth = steps(lengths)
    truth["action"] = np.clip(truth["action"], -1, 1)
    truth["reward"] = truth["success"].astype(float) if not shaped else truth["reward"]
    truth["next_state"] = truth["state"] + 1
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"reward_shaping": shaped}})
        for i in range(len(lengths)):
            at = truth["episode"] == i
            group = data.create_group(f"demo_{(0, 2, 10)[i]}")
            group["actions"], group["rewards"] = truth["action"][at].astype(float), truth["reward"][at].astype(float)
            group["dones"], group["states"] = truth["success"][at].astype(int), np.zeros((at.sum(), 9))
            group["obs/state"], group["obs/image"] = truth["state"][at].astype(float), truth["front"][at]
            if has_next:
                group["next_obs/state"], group["next_obs/image"] = truth["next_state"][at], truth["front"][at]
        file["mask/train"], file["mask/valid"] = np.array([b"demo_10", b"demo_0"]), np.array([b"demo_2"])
    return truth
