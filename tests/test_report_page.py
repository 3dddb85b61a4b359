"""The report's pictures and its page, the latter in a real browser."""

import re

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

import guidedflow as gf
from benchmarks import browser
from benchmarks.synthetic import write_run
from guidedflow.results import plots, published
from guidedflow.results.columns import read_records
from guidedflow.results.guidance import guidance_curves
from guidedflow.runs.find import find_runs
from guidedflow.runs.folder import RunFolder
from guidedflow.suites import tasks

PLAY = [task for task in tasks() if task.category == "ogbench/cube-single-play"]
NOISY = [task for task in tasks() if task.category == "ogbench/cube-single-noisy"]
HOSTILE = "</script><img src=x onerror=alert(1)>"
QUICK = "gfp vabc (quick, alpha=0.25, batch_size=128, flow_steps=7, hidden=256x256x128, other data)"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for task in PLAY[:2]:
        write_run(folder / "runs" / f"gfp-{task.id}", task, seeds=(0, 1), score=90.0)
        write_run(folder / "runs" / f"fql-{task.id}", task, "fql", seeds=(0, 1), score=60.0)
    write_run(folder / "runs" / "noisy", NOISY[0], seeds=(0, 1), score=30.0)
    made = {"data_made_by": {"seed": "0"}, "hidden": (256, 256, 128), "alpha": 0.25, "flow_steps": 7, "batch_size": 128}
    quick = write_run(folder / "runs" / "<b>quick & co" / HOSTILE, PLAY[0], preset="quick", **made)
    (quick / "videos").mkdir()
    Image.new("RGB", (7, 7)).save(quick / "videos" / "step25000-seed0-vabc-episode0.gif")
    return gf.report(folder / "runs", folder / "out")


@pytest.fixture(scope="module")
def figures(report):
    """Every picture as a Matplotlib figure."""
    from matplotlib import rc_context

    records = read_records(map(RunFolder, find_runs([report.path.parent / "runs"])))
    curves = guidance_curves(row for one in records.scored for row in one.run.guidance)
    with rc_context(plots.STYLE):
        return {name: draw() for name, draw in plots.drawings(report.table, records, report.statistics, curves).items()}


@pytest.mark.slow
def test_no_legend_is_cut_off_or_drawn_over_anything(figures):
    """Finding 22; the labels of the quick run are longer than most figures are wide."""
    assert any(len(text.get_text()) > 60 for figure in figures.values() for text in figure.legends[0].get_texts())
    for name, figure in figures.items():
        FigureCanvasAgg(figure).draw()
        (legend,), renderer = figure.legends, figure.canvas.get_renderer()
        box = legend.get_window_extent(renderer)
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, name
        assert figure.bbox.y0 <= box.y0, name
        panels = [axis.get_tightbbox(renderer) for axis in figure.axes if axis.axison]
        assert all(panel.y0 >= box.y1 for panel in panels), name
        assert all(figure.bbox.x0 <= panel.x0 and panel.x1 <= figure.bbox.x1 for panel in panels), name
        (title,) = figure.texts
        assert all(title.get_window_extent(renderer).y0 >= panel.y1 - 1 for panel in panels), name


@pytest.mark.slow
def test_curves_end_at_the_published_figures(figures):
    def marks(axis):
        return [line.get_ydata()[0] for line in axis.lines if line.get_marker() == "D"]

    one, several = (figures[f"curves-ogbench-cube-single-{name}"] for name in ("noisy", "play"))
    for axis, tasks_of_it in ((one.axes[0], NOISY[:1]), (several.axes[0], PLAY[:2]), (several.axes[2], PLAY[1:2])):
        ids = [task.id for task in tasks_of_it]
        figure = published().figure("gfp", tasks_of_it[0].category, ids, 5)
        assert marks(axis)[0] == pytest.approx(figure.mean)
    assert len(marks(one.axes[0])) == 2  # Of actor and VaBC.
    assert "diamonds: published" in one.texts[0].get_text()


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


@pytest.mark.slow
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
    view.locator("#suite").select_option("ogbench")
    assert len(categories(view)) == 2


def test_the_page_shows_the_tasks_of_a_category(view):
    tasks_shown = view.locator("#overview tr.task th")
    assert tasks_shown.count() == 0
    view.locator("#overview .toggle").filter(has_text="cube-single-play").click()
    assert tasks_shown.all_inner_texts() == [task.id for task in PLAY[:2]]
    assert view.locator("#overview [aria-expanded=true]").count() == 1
    view.locator("#tasks").check()
    assert tasks_shown.count() == 3
    view.locator("#tasks").uncheck()
    assert tasks_shown.count() == 0
    # A task that is asked for is shown without its category being opened.
    view.locator("#search").fill("play-singletask-task2")
    assert tasks_shown.all_inner_texts() == [PLAY[1].id]
    view.get_by_label(f"{PLAY[1].id}, gfp actor", exact=False).first.click()
    view.wait_for_selector("#cell .main-svg")
    assert view.locator("#cell tbody tr").filter(has_text=PLAY[1].id).count() == 2
    assert PLAY[0].id not in view.locator("#cell").inner_text()


def test_a_cell_shows_the_runs_behind_it(view):
    view.get_by_label(f"ogbench/cube-single-play, {QUICK}: ").click()
    view.wait_for_selector("#cell .main-svg")
    said = view.locator("#cell").inner_text()
    for text in (
        "Not comparable with the published figure",
        "fewer steps: 20,000 instead of 1,000,000",
        "other data: locally generated",
        "other network: hidden layers 256x256x128 instead of 512x512x512x512",
        f"<b>quick & co/{HOSTILE}",
    ):
        assert text in said
    view.locator("#cell img").scroll_into_view_if_needed()
    view.wait_for_function("document.querySelector('#cell img').naturalWidth === 7")
    view.locator("#cell details summary").click()
    view.locator("#cell details").get_by_text("mujoco").wait_for()
    view.keyboard.press("Escape")
    view.locator("#cell").wait_for(state="hidden")


CHARTS = "[...document.querySelectorAll('main .chart')]"


def test_every_chart_is_drawn_before_the_page_counts_as_loaded(view):
    """So whoever takes a picture of it, without scrolling, has them all (finding 22)."""
    assert view.evaluate("document.documentElement.dataset.charts") == "drawn"
    count = view.evaluate(f"{CHARTS}.length")
    assert count == 5  # Bars, interquartile means, profiles, and two of guidance.
    assert view.evaluate(f"{CHARTS}.filter(place => place.querySelector('.main-svg')).length") == count
    assert view.evaluate("window.scrollY") == 0
    assert "eta = " in view.locator("#guidance-key").inner_text()


def test_a_key_is_no_wider_than_a_phone(started, report):
    """Labels wrap outside of the charts, which keep their width (finding 22)."""
    phone = started.new_page(viewport={"width": 390, "height": 844})
    phone.goto((report.path / "index.html").as_uri())
    phone.wait_for_selector("html[data-charts=drawn]")
    for place in ("#bars-key", "#profiles-key"):
        entries = phone.locator(f"{place} li")
        assert entries.filter(has_text=QUICK).count() == 1
        assert all(entries.nth(i).bounding_box()["width"] <= 390 for i in range(entries.count()))
    # The plotting area has most of the phone's width.
    widths = phone.evaluate(f"{CHARTS}.map(place => place.querySelector('.nsewdrag').getBoundingClientRect().width)")
    assert min(widths) > 190
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.close()


@pytest.mark.slow
def test_paper_shows_every_chart_whole(view):
    """Even when it is printed at once (finding 22)."""
    assert view.pdf().startswith(b"%PDF")
    view.emulate_media(media="print")
    view.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    drawn = view.evaluate(f"{CHARTS}.map(place => place.querySelector('.main-svg').getBoundingClientRect().width)")
    assert set(drawn) == {470}
    view.emulate_media(media="screen")
    view.evaluate("window.dispatchEvent(new Event('afterprint'))")
    view.wait_for_function(
        f"{CHARTS}.every(place => place.querySelector('.main-svg').getBoundingClientRect().width != 470)"
    )


@pytest.mark.slow
def test_the_page_fits_a_phone(view):
    view.set_viewport_size({"width": 390, "height": 844})
    # Only the table scrolls sideways.
    view.wait_for_function("document.documentElement.scrollWidth <= 390", timeout=5_000)
