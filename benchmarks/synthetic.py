"""Run folders that look as if training had written them, for the report's benchmark and tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from guidedflow.agents import AGENTS
from guidedflow.runs.folder import EVALUATION_FIELDS, versions
from guidedflow.suites import Task
from guidedflow.training.settings import resolve, to_json


def write_run(
    path: Path,
    task: Task,
    agent: str = "gfp",
    *,
    seeds: tuple[int, ...] = (0,),
    score: float = 50.0,
    preset: Any = "published",
    data_made_by: dict[str, str] | None = None,
    until: int | None = None,
    **settings: Any,
) -> Path:
    """Write a run's folder as training does, with noise around ``score`` in place of results.

    Args:
        path: the new folder.
        task: what it pretends to have been trained on.
        agent: the algorithm.
        seeds: of the run.
        score: what the evaluations rise to.
        preset: as in training.
        data_made_by: what locally generated data says of itself.
        until: the step it was stopped at; None: it has finished.
        settings: as in training.
    """
    resolved = resolve(agent, preset, task, {"seeds": seeds, **settings})
    train = resolved.train
    path.mkdir(parents=True)
    config = {
        "task": task.id,
        "agent": agent,
        "preset": preset,
        "settings": to_json(train),
        "config": to_json(resolved.config),
        "sources": resolved.sources,
        "spec": {"observation_shape": [4], "observation_dtype": "float32", "action_size": task.action_size},
        "data": {
            "source": f"data/{task.file}",
            "fingerprint": "0",
            "transitions": 1_000_000,
            "episodes": 1000,
            "made_by": data_made_by,
        },
        "versions": versions(),
        "device": "synthetic",
        "created": "2026-01-01T00:00:00+00:00",
        "sweep": {},
    }
    (path / "config.json").write_text(json.dumps(config, indent=2))
    end = train.steps if until is None else until
    rows, metrics = [",".join(EVALUATION_FIELDS)], []
    for seed in seeds:
        rng = np.random.default_rng([seed, int(score), *map(ord, task.id), *map(ord, agent)])
        for step in sorted({*range(train.eval_every, end + 1, train.eval_every), end}):
            for policy in AGENTS[agent].policy_names:
                found = score * (1 - np.exp(-4 * step / train.steps)) + 4 * rng.normal()
                found = round(float(np.clip(found, 0, 100)), 2)
                numbers = f"{found / 100},0,1,-100,5,200,5,{found}"
                rows.append(f"{step},,{seed},{policy},{train.eval_episodes},{numbers}")
    if agent == "gfp":
        for step in range(
            train.log_every, end + 1, max(train.log_every, end // 400 // train.log_every * train.log_every)
        ):
            for seed in seeds:
                guided = 0.5 + 0.3 * step / train.steps
                metrics.append({"step": step, "seed": seed, "critic_loss": 1.0, "guidance": guided})
                metrics[-1]["guidance_above_half"] = guided
    (path / "evaluations.csv").write_text("\n".join(rows) + "\n")
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    if until is None:
        (path / "summary.json").write_text("{}")
    return path
