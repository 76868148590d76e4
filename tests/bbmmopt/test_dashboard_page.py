"""Facts about the dashboard's page, in a real browser: Debian's Chromium, without a window."""

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, ViewportSize, expect, sync_playwright

from bbmmopt import Optimizer, Real
from bbmmopt.dashboard import DashboardServer
from bbmmopt.plots import calibration_data, posterior_data
from bbmmopt.storage import open_storage
from bbmmopt.study import Study
from tests.bbmmopt.browsers import Seen
from tests.bbmmopt.dashboards import NASTY, conditional_study, serving, smooth_study

pytestmark = pytest.mark.alone

WINDOW: ViewportSize = {"width": 1280, "height": 900}

# It must not look for anything outside while it starts.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with several studies."""
    path = tmp_path_factory.mktemp("dashboard") / "study.db"
    with open_storage(path) as storage:
        conditional_study(storage)
        smooth_study(storage, "smooth")
        smooth_study(storage, "growing", 3)
        hot = Study(
            {"x": Real(0, 1)},
            minimize="loss",
            constraints="heat <= 1.5",
            storage=storage,
            study="hot",
        )
        for k in range(5):
            hot.add_trial({"x": k / 4}, {"loss": k, "heat": k / 2})
        steep = Study({"x": Real(0, 1)}, minimize="loss", storage=storage, study="steep")
        for k in range(14):
            steep.add_trial({"x": k / 13}, 1e6 if k == 5 else math.sin(k))
        optimizer = Optimizer(
            {"<b>x</b>": smooth_study(storage, "%{y}", 1).space.parameters["a"]},
            minimize="<i>loss</i>",
            storage=storage,
            study=NASTY,
            seed=0,
        )
        for value in (1.0, 2.0):
            optimizer.tell(optimizer.ask(worker="<img src=x onerror=alert(2)>"), value)
        optimizer.tell(optimizer.ask(), failed="Traceback\n<script>alert(3)</script>")
    return path


@pytest.fixture(scope="module")
def server(where: Path) -> Iterator[DashboardServer]:
    """A dashboard of it."""
    with serving(where) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """A browser, which must be installed: Debian's package chromium. It keeps Plotly's script."""
    program = shutil.which("chromium")
    assert program is not None, "the tests of the dashboard need Chromium: apt install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser.new_context(viewport=WINDOW)
        browser.close()


@pytest.fixture
def seen(browser: BrowserContext, server: DashboardServer) -> Iterator[Seen]:
    """A page, of which nothing may go wrong nor out."""
    page = browser.new_page()
    page.set_default_timeout(20_000)
    seen = Seen(page)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("dialog", lambda dialog: seen.complaints.append(f"dialog: {dialog.message}"))
    page.on(
        "console",
        lambda said: seen.complaints.append(said.text) if said.type == "error" else None,
    )
    page.on("request", lambda request: seen.requests.append(request.url))
    yield seen
    written = page.locator("body").inner_text()
    page.close()
    assert [word for word in ("[object", "undefined", "NaN") if word in written] == []
    assert seen.complaints == []
    strangers = [u for u in seen.requests if not u.startswith((server.origin, "data:", "blob:"))]
    assert [url for url in strangers if url != "about:blank"] == []


def test_every_tab_shows_something_fits_a_narrow_screen_and_asks_nobody_else(seen, server):
    seen.open(server, "svm")
    tabs = seen.page.get_by_role("tab")
    expect(tabs).to_have_text(["Overview", "Slices", "Model", "Timeline", "Trials"])
    for tab, kinds in {
        "Overview": ["history", "parallel"],
        "Slices": ["posterior", "acquisition"],
        "Model": ["importance", "calibration"],
        "Timeline": ["timeline"],
    }.items():
        tabs.filter(has_text=tab).click()
        for kind in kinds:
            seen.settled(kind)
            assert seen.plot(kind), kind
        expect(seen.page.locator(".note.wrong")).to_have_count(0)
        seen.page.set_viewport_size({"width": 420, "height": 800})
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 420
        seen.page.set_viewport_size(WINDOW)
    seen.page.keyboard.press("ArrowRight")
    expect(seen.page.get_by_role("tab", selected=True)).to_have_text("Trials")
    expect(seen.page.get_by_role("tab", selected=True)).to_be_focused()
    seen.page.keyboard.press("ArrowLeft")
    assert any(url.endswith("/plotly.min.js") for url in seen.requests)
    assert "token" not in seen.page.url  # nobody can read it over a shoulder
    seen.page.reload()
    expect(seen.page.get_by_role("tab", selected=True)).to_have_text("Timeline")


def test_the_history_grows_by_itself_while_others_write(seen, server, where):
    seen.open(server, "growing")
    seen.settled("history")
    assert len(seen.trace("history", "value")["x"]) == 3
    asked = len([url for url in seen.requests if "kind=history" in url])
    with Study.open(where, "growing") as other:
        trial = other.add_trial({"a": 0.5, "b": 0.5, "c": 10.0}, -1.0)
        expect(seen.page.locator("#summary")).to_contain_text("4 complete")
        expect(seen.page.locator("#summary .best")).to_contain_text("loss = -1 in trial 3")
        seen.settled("history")
        expect(seen.page.locator(".card .state").first).to_have_text(re.compile(r"^revision 8$"))
        assert seen.trace("history", "value")["y"][-1] == -1.0
        assert seen.trace("history", "best so far")["y"][-1] == -1.0
        other.enqueue({"a": 0.0, "b": 0.0, "c": 1.0})
        other.add_trial({"a": 1.0, "b": 1.0, "c": 1.0}, 2.0)
        seen.until(lambda: len(seen.trace("history", "value")["x"]) == 5)
        other.tell(4, 3.0)  # in the middle of what the page has
        seen.until(lambda: 4 in seen.trace("history", "value")["x"])
        assert seen.trace("history", "value")["x"] == [0, 1, 2, 3, 4, 5]
        assert seen.trace("history", "value")["y"][3:] == [trial.value, 3.0, 2.0]
    fresh = [url for url in seen.requests if "kind=history" in url][asked:]
    assert fresh  # and only what is new was asked for
    assert all(re.search(r"have=[1-9]", url) for url in fresh)


def test_a_slider_moves_the_slice(seen, server, where):
    seen.open(server, "smooth", "slices")
    seen.page.locator("#slice-x").select_option("a")
    seen.page.locator("#slice-y").select_option("")
    seen.settled("posterior")
    slider = seen.page.locator('input[type="range"][data-name="c"]')
    exact = seen.page.get_by_label("c, exactly")
    for place, value in [("0", 1.0), ("1000", 100.0), ("500", 10.0)]:
        slider.fill(place)
        expect(exact).to_have_value(f"{value:g}")
        with Optimizer.open(where, "smooth") as optimizer:
            b = optimizer.best.params["b"]
            expected = posterior_data(optimizer, "a", fixed={"b": b, "c": value})
        medians = pytest.approx(expected["median"].tolist(), rel=1e-6, abs=1e-9)
        seen.until(lambda medians=medians: seen.trace("posterior", "median")["y"] == medians)
        seen.settled("acquisition")


def test_the_posterior_of_a_constraint_shows_its_bound_and_what_breaks_it(seen, server):
    seen.open(server, "hot", "slices")
    seen.settled("posterior")
    assert seen.trace("posterior", "infeasible")["x"] == [1.0]
    seen.page.get_by_label("Output").select_option("heat")
    seen.until(lambda: any(t.get("name") == "bound ≤ 1.5" for t in seen.plot("posterior")))
    assert seen.trace("posterior", "bound ≤ 1.5")["y"] == [1.5, 1.5]
    assert sorted(seen.trace("posterior", "observed")["y"]) == [0.5, 1.0, 1.5]
    assert seen.trace("posterior", "best")["y"] == [0.0]
    assert seen.trace("posterior", "infeasible")["y"] == [2.0]


def test_a_conditional_parameter_has_a_control_only_where_it_is_active(seen, server):
    seen.open(server, "svm", "slices")
    seen.page.locator("#slice-x").select_option("C")
    seen.page.locator("#slice-y").select_option("")
    kernel, degree = (seen.page.locator(f'[data-name="{name}"]') for name in ("kernel", "degree"))
    for choice, count in [("poly", 1), ("rbf", 0), ("poly", 1)]:
        kernel.select_option(label=choice)
        expect(degree).to_have_count(count)
        seen.settled("posterior")
        expect(seen.page.locator(".note.wrong")).to_have_count(0)
    degree.fill("3")
    kernel.select_option(label="rbf")  # degree was set, and is not active any more
    expect(degree).to_have_count(0)
    seen.settled("acquisition")
    expect(seen.page.locator(".note.wrong")).to_have_count(0)


def test_a_trial_added_in_the_page_is_in_the_storage(seen, server, where):
    seen.open(server, "svm", "trials")
    seen.page.get_by_role("button", name="Add a trial").click()
    form = seen.page.get_by_role("dialog")
    expect(form).to_contain_text("an integer in [0, 1152921504606846976]")
    form.get_by_label("kernel").select_option(label="rbf")
    expect(form.get_by_label("degree")).to_have_count(0)
    form.get_by_label("kernel").select_option(label="poly")
    form.get_by_label("degree").fill("7")
    form.get_by_label("huge").fill(str(2**60 - 3))
    form.get_by_label("C").fill("0.125")
    seen.complaints.clear()
    form.get_by_role("button", name="Put it in line").click()
    expect(form.get_by_role("alert")).to_contain_text("parameter 'degree': 7 is outside [2, 5]")
    assert "422" in seen.complaints.pop()  # the browser notes that
    form.get_by_label("degree").fill("5")
    form.get_by_role("button", name="Put it in line").click()
    expect(form).to_have_count(0)
    expect(seen.page.locator('tr[data-number="10"]')).to_contain_text("waiting")
    with Study.open(where, "svm") as study:
        assert study.trials[10].state == "waiting"
        assert study.trials[10].params == {
            "C": 0.125,
            "kernel": "poly",
            "degree": 5,
            "huge": 2**60 - 3,
        }


def test_a_value_told_in_the_page_is_in_the_storage(seen, server, where):
    seen.open(server, "svm", "trials")
    seen.page.get_by_role("button", name="Details of trial 8").click()
    seen.page.get_by_role("button", name="Tell what came out").click()
    form = seen.page.get_by_role("dialog")
    form.get_by_label("loss").fill("1.5e-3")
    form.get_by_role("button", name="Tell").click()
    expect(seen.page.locator("#said")).to_contain_text("Trial 8 is complete: loss = 0.0015")
    expect(seen.page.locator('tr[data-number="8"]')).to_contain_text("complete")
    with Study.open(where, "svm") as study:
        assert study.trials[8].values == {"loss": 0.0015}


def test_runs_are_stopped_from_the_page(seen, server, where):
    with Study.open(where, "smooth") as study:
        assert study.stop_reason is None
        seen.open(server, "smooth")
        seen.page.get_by_role("button", name="Stop").click()
        form = seen.page.get_by_role("dialog")
        form.get_by_label("Why").fill("lunch")
        form.get_by_role("button", name="Stop").click()
        expect(seen.page.locator("#summary")).to_contain_text("asked to stop: lunch")
        assert study.stop_reason == "lunch"


def test_trials_are_sorted_filtered_and_their_tracebacks_folded(seen, server):
    seen.open(server, "svm", "trials")
    rows = seen.page.locator("tr.trial")
    seen.page.get_by_role("button", name="loss").click()
    expect(seen.page.locator("th[aria-sort=ascending]")).to_contain_text("loss")
    expect(rows.nth(1)).to_contain_text("0.25")
    seen.page.get_by_label("Find in trials").fill("zerodivision")
    expect(rows).to_have_count(1)
    seen.page.get_by_role("button", name="Details of trial 3").click()
    folded = seen.page.locator("details.reason")
    expect(folded.locator("summary")).to_have_text("ZeroDivisionError: <b>zero</b>")
    expect(folded.locator("pre")).to_be_hidden()
    details = seen.page.locator("tr.details dl")
    expect(details).to_contain_text("kernel")
    folded.locator("summary").click()
    expect(folded.locator("pre")).to_contain_text("Traceback (most recent call last)")


def test_names_that_look_like_html_are_text_and_another_study_can_be_chosen(seen, server):
    seen.open(server, NASTY)
    page = seen.page
    expect(page.locator("#study option:checked")).to_have_text(NASTY)
    for tab in ("overview", "slices", "model", "timeline", "trials"):
        page.locator(f"#tab-{tab}").click()
        expect(page.locator(".card.busy")).to_have_count(0)
        if tab == "overview":
            seen.settled("history")
            expect(page.locator("#plot-history .ytitle")).to_have_text("<i>loss</i> (minimized)")
            expect(page.locator("#plot-parallel")).to_contain_text("<b>x</b>")
        if tab == "timeline":
            seen.settled("timeline")
            expect(page.locator("#plot-timeline")).to_contain_text("<img")
    expect(page.locator("tr.trial").first).to_contain_text("<script>alert(3)</script>")
    assert page.locator("main b, main i, main img, main script").count() == 0
    page.get_by_role("button", name="Add a trial").click()
    expect(page.get_by_role("dialog")).to_contain_text("<b>x</b>")
    page.keyboard.press("Escape")
    page.locator("#tab-overview").click()
    page.locator("#study").select_option("%{y}")
    expect(page.locator("#summary")).to_contain_text("1 complete")
    seen.settled("history")
    assert seen.trace("history", "value")["x"] == [0]
    expect(page).to_have_title("%{y} · bbmmopt")


def test_each_trial_is_predicted_as_plot_calibration_has_it(seen, server, where):
    seen.open(server, "steep", "model")
    seen.settled("calibration")
    with Optimizer.open(where, "steep") as optimizer:
        table = calibration_data(optimizer)
    assert table["trial"][~table["counts"]].tolist() == [5]
    within, cut = (
        seen.trace("calibration", "within 95 %"),
        seen.trace("calibration", "cut off by the model"),
    )
    inside = table["counts"] & (abs(table["z"]) < 1.95)
    assert set(table["observed"][inside]) <= set(within["x"])
    at = dict(zip(within["x"], within["y"], strict=True))
    for observed, predicted in zip(
        table["observed"][inside], table["predicted"][inside], strict=True
    ):
        assert at[observed] == pytest.approx(predicted, rel=1e-6, abs=1e-9)
    # What is cut off is no reason to squeeze the others: it stands at the edge.
    low, high = seen.page.evaluate("document.getElementById('plot-calibration').layout.xaxis.range")
    assert (cut["x"], len(cut["y"])) == ([high], 1)
    assert -6 < low < high < 6
    seen.page.get_by_text(f"of {table.facts['n']} of 14 trials").wait_for()


def test_the_page_can_be_used_with_the_keyboard_and_heard(seen, server):
    seen.open(server, "svm")
    page, keyboard = seen.page, seen.page.keyboard
    seen.settled("history")
    page.locator("#tab-overview").focus()
    selected = page.get_by_role("tab", selected=True)
    for key, text in [("End", "Trials"), ("ArrowRight", "Overview"), ("ArrowLeft", "Trials")]:
        keyboard.press(key)
        expect(selected).to_have_text(text)
        expect(selected).to_be_focused()
    keyboard.press("Home")
    expect(selected).to_have_text("Overview")
    # A picture is told in words, not tick by tick.
    heard = page.get_by_role("group", name=re.compile(r"best so far.*loss = 0.25 in trial 4", re.I))
    expect(heard).to_have_count(1)
    expect(heard.locator(".main-svg:not([aria-hidden])")).to_have_count(0)
    # Nor is each revision read out.
    expect(page.locator("[role=status]").filter(has_text="revision")).to_have_count(0)
    page.get_by_role("button", name="Add a trial").focus()
    keyboard.press("Enter")
    form = page.get_by_role("dialog", name="Add a trial")
    expect(form.get_by_label("C", exact=True)).to_be_focused()
    keyboard.press("Escape")
    expect(form).to_have_count(0)
    expect(page.get_by_role("button", name="Add a trial")).to_be_focused()


def test_a_page_says_that_the_server_is_away_and_goes_on_when_it_is_back(seen, where):
    live, message = seen.page.locator("#live"), seen.page.locator("#message")
    seen.page.clock.install()
    with serving(where) as server:
        port = int(server.origin.rpartition(":")[2])
        seen.open(server, "smooth")
        seen.settled("history")
    expect(live).to_have_text("not connected")
    expect(message).to_contain_text("is it still running?")
    seen.page.locator("#tab-timeline").click()
    expect(seen.page.locator(".note.wrong")).to_contain_text("is it still running?")
    with serving(where, port=port):
        seen.page.clock.fast_forward(3_000)
        expect(live).to_have_text("live")
        expect(message).to_be_hidden()
        seen.settled("timeline")
        expect(seen.page.locator(".note.wrong")).to_have_count(0)
        # Without a word: as if the computer had slept, or a tunnel was broken.
        seen.page.route("**/api/notes?*", lambda route: None)
        seen.open(server, "smooth")
        expect(live).to_have_text("live")
        seen.page.clock.fast_forward(41_000)
        expect(live).to_have_text("not connected")
        seen.page.unroute("**/api/notes?*")
        seen.page.clock.fast_forward(3_000)
        expect(live).to_have_text("live")
    seen.complaints.clear()  # the browser notes each request that nobody answered
    seen.requests.clear()


def test_a_wrong_token_is_told_what_to_do(seen, server):
    seen.open(server, "svm", token="guessed")
    expect(seen.page.locator("#message")).to_contain_text("open the address that the dashboard")
    expect(seen.page.locator("#live")).to_have_text("not connected")
    assert seen.page.locator(".card").count() == 0
    assert ["401" in text for text in seen.complaints] == [True]
    seen.complaints.clear()
