"""The report's pictures and its page, the latter in a real browser."""

import re

import pytest
from PIL import Image

import guidedflow as gf
from benchmarks import browser
from benchmarks.synthetic import write_run
from guidedflow.suites import tasks

PLAY = [task for task in tasks() if task.category == "ogbench/cube-single-play"]
NOISY = [task for task in tasks() if task.category == "ogbench/cube-single-noisy"]
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for task in PLAY[:2]:
        write_run(folder / "runs" / f"gfp-{task.id}", task, seeds=(0, 1), score=90.0)
        write_run(folder / "runs" / f"fql-{task.id}", task, "fql", seeds=(0, 1), score=60.0)
    write_run(folder / "runs" / "noisy", NOISY[0], seeds=(0, 1), score=30.0)
    quick = write_run(folder / "runs" / "<b>quick & co" / HOSTILE, PLAY[0], preset="quick", data_made_by={"seed": "0"})
    (quick / "videos").mkdir()
    Image.new("RGB", (7, 7)).save(quick / "videos" / "step25000-seed0-vabc-episode0.gif")
    return gf.report(folder / "runs", folder / "out")


def test_every_picture_is_there_twice_and_the_same_runs_give_the_same_files(report):
    plots = {path.name for path in (report.path / "plots").iterdir()}
    names = {"curves-ogbench-cube-single-play", "curves-ogbench-cube-single-noisy", "performance-profile", "categories"}
    assert plots == {f"{name}.{kind}" for name in [*names, "guidance"] for kind in ("svg", "png")}
    before = (report.path / "plots" / "guidance.svg").read_bytes()
    again = gf.report(report.path.parent / "runs", report.path.parent / "again")
    assert (again.path / "plots" / "guidance.svg").read_bytes() == before
    assert not list(report.path.rglob("*.tmp"))


def test_the_page_is_one_file_that_asks_for_no_other(report):
    page = (report.path / "index.html").read_text()
    ours = page[: page.index('<script type="text/plain"')]
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", ours)
    assert HOSTILE not in page
    assert len(page) < 6e6


@pytest.fixture(scope="module")
def started():
    if not browser.is_there():
        pytest.skip(browser.MISSING)
    with browser.chromium() as found:
        yield found


@pytest.fixture
def view(started, report):
    page = started.new_page(viewport={"width": 1280, "height": 900})
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.complaints.append(request.url))
    page.goto((report.path / "index.html").as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    # The page's own address is the only one it asks for.
    assert page.complaints.pop(0).startswith("file:")
    yield page
    assert page.complaints == []
    page.close()


def categories(view):
    return view.locator("#overview tbody").first.locator("th").all_inner_texts()


def test_the_page_sorts_and_filters(view):
    assert len(categories(view)) == 2
    head = view.get_by_role("button", name="gfp actor", exact=True)
    head.click()
    assert categories(view) == ["ogbench/cube-single-play", "ogbench/cube-single-noisy"]
    head.click()
    assert categories(view) == ["ogbench/cube-single-noisy", "ogbench/cube-single-play"]
    view.locator("#search").fill("noisy")
    assert categories(view) == ["ogbench/cube-single-noisy"]
    view.locator("#search").fill("")
    shown = view.locator("#overview tbody button").count()
    view.locator("#comparable").check()
    assert 0 < view.locator("#overview tbody button").count() < shown
    view.locator("#benchmark").select_option("ogbench")
    assert len(categories(view)) == 2


def test_a_cell_shows_the_runs_behind_it(view):
    view.get_by_label("ogbench/cube-single-play, gfp vabc (quick, other data)").click()
    view.wait_for_selector("#cell .main-svg")
    said = view.locator("#cell").inner_text()
    for text in (
        "Not comparable with the published figure",
        "fewer steps: 25,000 instead of 1,000,000",
        "other data: locally generated",
        "other network: hidden layers 256x256x256 instead of 512x512x512x512",
        f"<b>quick & co/{HOSTILE}",
    ):
        assert text in said
    view.locator("#cell img").scroll_into_view_if_needed()
    view.wait_for_function("document.querySelector('#cell img').naturalWidth === 7")
    view.locator("#cell details summary").click()
    view.locator("#cell details").get_by_text("mujoco").wait_for()
    view.keyboard.press("Escape")
    view.locator("#cell").wait_for(state="hidden")


def test_charts_are_drawn_when_they_come_into_sight(view):
    view.locator("#guidance").scroll_into_view_if_needed()
    view.wait_for_selector("#guidance .main-svg")
    assert "eta = " in view.locator("#guidance").inner_text()


def test_the_page_prints_and_fits_a_phone(view):
    assert view.pdf().startswith(b"%PDF")
    view.set_viewport_size({"width": 390, "height": 844})
    # Only the table scrolls sideways.
    view.wait_for_function("document.documentElement.scrollWidth <= 390", timeout=5_000)
