"""What a user sees of a run, drawn from progress made by hand: bars, lines and tables on 80 and on 40 columns."""

import io
import logging
import math
import subprocess
import sys
from unittest.mock import MagicMock

import pytest
from rich.console import Console

from guidedflow.notices import show_notices
from guidedflow.runs.summary import over_seeds
from guidedflow.training.display import LINE_EVERY, ProgressBar, _Picture, duration, evaluation_line, results_table
from guidedflow.training.progress import Clock, Progress

LOSSES = {"critic_loss": 0.01234, "actor_loss": -1.5, "q_mean": -33.0}


def row(policy="actor", seed=0, success=0.7, **changes):
    """A row of an evaluation in which the score is the success rate, unless changed."""
    around = {"success_low": success - 0.1, "success_high": success + 0.1, "mean_return": -100 * (1 - success)}
    return {
        **{"step": 10_000, "variant": (), "seed": seed, "policy": policy, "episodes": 50, "success": success},
        **{**around, "score": 100 * success},
        **changes,
    }


def unsuccessful(mean_return, **changes):
    """A row of an environment that knows no success."""
    nothing = dict.fromkeys(("success", "success_low", "success_high"), math.nan)
    return row(**nothing, mean_return=mean_return, **{"score": mean_return, **changes})


def console(width=80, **options):
    return Console(file=io.StringIO(), width=width, highlight=False, markup=False, **options)


def drawn(thing, width):
    """The lines that a terminal of so many columns shows."""
    found = console(width)
    found.print(thing)
    return found.file.getvalue().splitlines()


def picture(progress, width):
    shown = _Picture()
    shown.show(progress)
    return drawn(shown, width)


def lines(*events):
    """What a pipe gets of progress; a tuple is an evaluation's rows and where the run was then."""
    found = console()
    bar = ProgressBar(found)
    for event in events:
        bar.on_evaluation(event[0]) if isinstance(event, tuple) else bar.on_progress(event)
    bar.on_end(Progress(100, 100, "finished"))
    return found.file.getvalue().splitlines()


# ------------------------------------------------------------------------------------------------------- the bar


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0:00"), (7.4, "0:07"), (3599.6, "1:00:00"), (3723, "1:02:03"), (1e5, "1d 03:46:40")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_bar_and_time_left_are_there_at_any_width(width):
    progress = Progress(400_000, 1_000_000, "training", 3600, 5400, 12_345, LOSSES, [row()])
    bar, detail = picture(progress, width)
    assert ("400,000/1,000,000" if width >= 40 else "40%") in bar
    assert "━" in bar
    assert "1:30:00 left" in bar
    assert ("12,345/s" in bar) == (width >= 60)
    assert ("1:00:00 elapsed" in bar) == (width >= 80)
    assert max(map(len, (bar, detail))) <= width
    assert detail.startswith("critic 0.0123  actor -1.5")


def test_before_the_first_evaluation_the_time_left_is_that_of_the_steps_at_least():
    bar, _ = picture(Progress(1_000, 25_000, "training", 10, None, 100.0, LOSSES), 40)
    assert ">4:00 left" in bar
    bar, _ = picture(Progress(0, 25_000, "compiling", 3), 40)
    assert "left" not in bar


def test_the_time_left_counts_evaluations_and_the_rest_of_the_one_that_runs():
    clock = Clock()
    assert clock.left(1_000, 2) is None
    clock.updates_per_second = 100.0
    assert clock.left(1_000, 0) == 10.0
    assert clock.left(1_000, 2) is None  # Nobody knows how long an evaluation takes.
    clock.evaluating(0.0, 0.0)
    assert clock.left(1_000, 1) is None
    clock.evaluating(5.0, 0.25)  # The first one, after a quarter of its episodes.
    assert clock.left(1_000, 1) == 10 + 20 + 0.75 * 20
    clock.evaluating(30.0, 1.0)
    assert clock.left(0, 1) == 30.0
    clock.evaluating(1.0, 0.5)  # What was measured counts more than a beginning.
    assert clock.left(0, 0) == 15.0


def test_an_evaluation_counts_its_episodes():
    progress = Progress(10_000, 25_000, "evaluating", 40, 30, 0, {}, [], 37, 200)
    bar, detail = picture(progress, 80)
    assert "10,000/25,000 steps" in bar
    assert detail == "evaluating: 37/200 episodes"
    bar, _ = picture(Progress(25_000, 25_000, "evaluating", 40, 30, 0, {}, [], 37, 200), 80)
    assert "37/200 episodes" in bar


def test_stopping_is_said_in_the_bar_at_once_and_the_bar_goes_at_the_end():
    found = console(force_terminal=True)
    bar = ProgressBar(found)
    bar.on_progress(Progress(10, 100, "training", metrics=LOSSES))
    bar.on_progress(Progress(10, 100, "stopping"))
    assert "stopping: the run is being saved" in found.file.getvalue()
    bar.on_end(Progress(10, 100, "finished"))
    assert found.file.getvalue().endswith("\x1b[2K")  # The bar's lines are erased.
    assert "\x1b[?25h" in found.file.getvalue()  # The cursor is shown again.


@pytest.mark.parametrize("has_widgets", [False, True])
def test_a_notebook_has_a_bar_or_without_ipywidgets_lines(has_widgets, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if has_widgets else None)
    bars, printed = [], []
    monkeypatch.setattr("guidedflow.training.display.Live", lambda *_, **options: bars.append(options) or MagicMock())
    found = console(force_jupyter=True)
    monkeypatch.setattr(found, "print", lambda text, **_: printed.append(text))
    bar = ProgressBar(found)
    for step in (0, 50):
        bar.on_progress(Progress(step, 100, "training", step, 100 - step, 1.0, LOSSES))
    assert (len(bars), len(printed)) == ((1, 0) if has_widgets else (0, 1))


# ------------------------------------------------------------------------------------------------------- a pipe


def test_lines_carry_elapsed_time_and_time_left():
    found = lines(
        Progress(0, 100, "compiling"),
        Progress(4, 100, "training", 4, 96, 1.0, LOSSES),
        Progress(12, 100, "training", 12, 88, 1.0, LOSSES),
        Progress(14, 100, "training", 14, 86, 1.0, LOSSES),
        (Progress(20, 100, "training", 30, 120, 1.0, {}, [row(step=20), row("vabc", success=0.8, step=20)]),),
        Progress(20, 100, "stopping", 31, 119),
        Progress(20, 100, "stopping", 32, 119),
    )
    assert found == [
        "step 12/100, 0:12 elapsed, 1:28 left: 1 updates/s  critic 0.0123  actor -1.5",
        "step 20/100, 0:30 elapsed, 2:00 left: success actor 70%, vabc 80%",
        "step 20/100, 0:31 elapsed, 1:59 left: stopping: the run is being saved",
    ]


def test_a_long_evaluation_and_a_continued_run_say_so_in_a_pipe():
    found = lines(
        Progress(50, 100, "compiling", 1),
        Progress(50, 100, "evaluating", 2, None, episodes_done=1, episodes_total=9),
        Progress(50, 100, "evaluating", 2 + LINE_EVERY, 7200, episodes_done=5, episodes_total=9),
    )
    assert found == [
        "step 50/100, 0:01 elapsed: continuing from here",
        "step 50/100, 5:02 elapsed, 2:00:00 left: evaluating: 5/9 episodes",
    ]


def test_an_evaluation_is_announced_with_its_own_step():
    (line,) = lines((Progress(40, 100, "training", evaluations=[row(step=20)]),))
    assert line.startswith("step 20/100")


def test_an_evaluation_in_short():
    assert evaluation_line([row(seed=seed, success=seed / 4) for seed in range(3)]) == "success actor 25%"
    assert (
        evaluation_line([unsuccessful(-150.0), unsuccessful(-50.0, policy="vabc")]) == "return actor -150.0, vabc -50.0"
    )
    assert evaluation_line([unsuccessful(3000.0, score=54.2)]) == "score actor 54.2"
    swept = [row(variant=(("alpha", a),), success=s, score=100 * s) for a, s in ((0.3, 0.5), (3.0, 0.75), (30.0, 0.1))]
    assert evaluation_line(swept) == "success actor 75% (best of 3: alpha=3)"


# ------------------------------------------------------------------------------------------------------- results


ROWS = [row(policy, seed, success) for seed, success in ((0, 0.7), (1, 0.5)) for policy in ("actor", "vabc")]


def test_the_table_of_results():
    text = "\n".join(drawn(results_table(ROWS, over_seeds(ROWS)), 80))
    assert "success rate [95% interval]" in text
    assert "70.0%  [60.0%, 80.0%]" in text
    assert "mean of 2" in text
    assert "score" not in text
    assert "episodes" in text


def test_on_40_columns_the_least_important_columns_go_and_every_row_stays_on_its_line():
    found = drawn(results_table(ROWS, over_seeds(ROWS)), 40)
    assert max(map(len, found)) <= 40
    assert [" ".join(line.split()) for line in found if "actor" in line][:2] == [
        "actor 0 70% [60, 80]",
        "actor 1 50% [40, 60]",
    ]
    assert "episodes" not in "\n".join(found)


def test_where_there_is_no_success_no_interval_is_shown_and_no_share():
    rows = [unsuccessful(-150.0), unsuccessful(-120.0, policy="vabc")]
    text = "\n".join(drawn(results_table(rows, over_seeds(rows)), 80))
    assert "success" not in text
    assert "%" not in text
    assert "score" not in text  # It would be the return once more.
    assert "-150.0" in text
    rows = [unsuccessful(3000.0, score=54.2)]
    text = "\n".join(drawn(results_table(rows, over_seeds(rows)), 40))
    assert "54.2" in text
    assert "3000.0" in text


def test_a_sweep_is_ranked_and_the_table_says_by_what():
    rows = [row(variant=(("alpha", a),), success=s, score=100 * s) for a, s in ((0.3, 0.5), (3.0, 0.75))]
    found = drawn(results_table(rows, over_seeds(rows)), 80)
    assert next(line for line in found if "alpha=" in line).split()[0] == "alpha=3"
    assert "best first, by the success of actor" in "\n".join(found)


# ------------------------------------------------------------------------------------------------------- notices


def notices(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr


def test_notices_are_shown_in_a_script_once_and_not_where_logging_is_set_up():
    say = "from guidedflow.notices import *; show_notices(); show_notices(); logger.info('%d left', 3)"
    assert notices(say) == "guidedflow: note: 3 left\n"
    assert notices(f"import logging; logging.basicConfig(format='%(message)s!'); {say}") == "3 left!\n"
    assert notices(f"import logging; logging.getLogger('guidedflow').setLevel(30); {say}") == ""
    assert notices(f"import logging; logging.basicConfig(); {say}") == "guidedflow: note: 3 left\n"  # As Orbax does.


def test_the_command_line_shows_its_notices_always(capsys):
    show_notices(always=True)
    logging.getLogger("guidedflow").info("seen")  # pytest has set up logging.
    assert capsys.readouterr().err == "guidedflow: note: seen\n"
