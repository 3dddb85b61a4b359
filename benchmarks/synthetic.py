"""Run folders that look as if training had written them, for the report's benchmark and tests."""

from pathlib import Path
from typing import Any

import numpy as np

from guidedflow.agents import AGENTS
from guidedflow.runs.config import DataRecord, RunConfig
from guidedflow.runs.folder import RunFolder
from guidedflow.runs.summary import wilson_interval
from guidedflow.suites.suite import Task
from guidedflow.training.settings import Resolved, TrainSettings, plain_sweep, resolve, to_json
from guidedflow.types import Spec, Variant

VERSIONS = {"guidedflow": "1.0.0", "jax": "0.7.2", "mujoco": "3.4.0"}


def write_run(
    path: Path,
    task: Task | None,
    agent: str = "gfp",
    *,
    env: str | None = None,
    seeds: tuple[int, ...] = (0,),
    score: float = 50.0,
    noise: float = 4.0,
    preset: Any = "published",
    data_made_by: dict[str, str] | None = None,
    sweep: dict[str, tuple[float, ...]] | None = None,
    until: int | None = None,
    **settings: Any,
) -> Path:
    """Write a run's folder as training does, with noise around ``score`` in place of results.

    Args:
        path: the new folder.
        task: what it pretends to have been trained on; None: an environment or data of the user's own.
        agent: the algorithm.
        env: the environment, without a task.
        seeds: of the run.
        score: what the evaluations rise to, in percent of success.
        noise: standard deviation of each.
        preset: as in training.
        data_made_by: what locally generated data says of itself.
        sweep: one swept setting and its values.
        until: the step it was stopped at; None: it has finished.
        settings: as in training.
    """
    resolved = resolve(AGENTS[agent], preset, task, {"seeds": seeds, **settings})
    config = _config(resolved, task, env, agent, preset, plain_sweep(sweep), data_made_by)
    folder = RunFolder.create(path, config)
    end = resolved.train.steps if until is None else until
    variants: list[Variant] = [((name, value),) for name, values in config.sweep.items() for value in values] or [()]
    evaluations = []
    for variant in variants:
        for seed in seeds:
            rng = np.random.default_rng([seed, int(score), *map(ord, f"{config.task}{agent}{variant}")])
            rows = _evaluations(resolved.train, end, score, noise, AGENTS[agent].policy_names, rng)
            returns = [_return(task, row["score"]) for row in rows]
            for row, (mean_return, half_width) in zip(rows, returns, strict=True):
                row |= {"variant": variant, "seed": seed, "mean_return": mean_return, "return_half_width": half_width}
            evaluations += rows
    if evaluations:
        folder.log_evaluations(evaluations)
    if "eta" in config.config:
        folder.log_metrics(_metrics(resolved.train, end, seeds))
    if until is None:
        folder.write_summary({})
    return path


def _config(
    resolved: Resolved,
    task: Task | None,
    env: str | None,
    agent: str,
    preset: str,
    sweep: dict[str, tuple[float, ...]],
    made_by: dict[str, str] | None,
) -> RunConfig:
    source = "/data/own.npz" if task is None else f"/data/{task.dataset}.npz"
    return RunConfig(
        agent=agent,
        preset=preset,
        settings=to_json(resolved.train),
        config=to_json(resolved.config),
        sources=resolved.sources,
        sweep=sweep,
        spec=Spec((4,), np.dtype(np.float32), 2 if task is None else task.action_size),
        data=DataRecord(source, task is None, "0", 1_000_000, 1000, made_by),
        versions=VERSIONS,
        device="synthetic",
        created="2026-01-01T00:00:00+00:00",
        task=None if task is None else task.id,
        env=env,
    )


def _evaluations(
    train: TrainSettings, end: int, score: float, noise: float, policies: tuple[str, ...], rng: np.random.Generator
) -> list[dict[str, Any]]:
    rows = []
    for step in sorted({*range(train.eval_every, end + 1, train.eval_every), end}):
        for policy in policies:
            found = score * (1 - np.exp(-4 * step / train.steps)) + noise * rng.normal()
            rate = round(float(np.clip(found, 0, 100)), 2) / 100
            low, high = wilson_interval(rate, train.eval_episodes)
            rows.append(
                {
                    "step": step,
                    "policy": policy,
                    "episodes": train.eval_episodes,
                    "success": rate,
                    "success_low": low,
                    "success_high": high,
                    "mean_length": 200.0,
                    "length_half_width": 5.0,
                    "score": 100 * rate,
                    "source": "training",
                    "env_seed": "",
                }
            )
    return rows


def _return(task: Task | None, score: float) -> tuple[float, float]:
    """The mean return that gives a score, and the half-width that 2 points of it stand for."""
    zero, one = (0.0, 1.0) if task is None else (task.suite.score(task, score / 100, value) for value in (0.0, 1.0))
    return ((score - zero) / (one - zero), 2 / (one - zero)) if one != zero else (score, 2.0)


def _metrics(train: TrainSettings, end: int, seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    interval = max(train.log_every, end // 400 // train.log_every * train.log_every)
    rows = []
    for step in range(train.log_every, end + 1, interval):
        guided = 0.5 + 0.3 * step / train.steps
        rows += [
            {
                "step": step,
                "variant": (),
                "seed": seed,
                "critic_loss": 1.0,
                "guidance": guided,
                "guidance_above_half": guided,
            }
            for seed in seeds
        ]
    return rows
