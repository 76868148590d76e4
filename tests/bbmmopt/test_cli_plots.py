"""Facts about `bbmmopt plot`: every picture as a file, and the numbers behind it."""

import csv
import inspect
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbmmopt import Categorical, Optimizer, Real, Study, plots
from bbmmopt.cli.plotting import _KINDS
from tests.bbmmopt.programs import run as run_program
from tests.bbmmopt.shell import LINE, create, line, ok, refused

pytestmark = pytest.mark.usefixtures("in_an_empty_directory")

PICTURES = [kind for kind in _KINDS if kind != "animation"]


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one objective that reported, one of two, and one of other seeds."""
    folder = tmp_path_factory.mktemp("runs")
    space = {"x": Real(-1, 1), "y": Real(-1, 1), "kind": Categorical(["a", "b"])}
    with Optimizer(
        space, minimize="loss", storage=folder / "one.db", seed=0, n_start=5
    ) as optimizer:
        for number in range(8):
            trial = optimizer.ask(worker="ann")
            value = trial.params["x"] ** 2 + trial.params["y"] + (trial.params["kind"] == "b")
            for step in (1, 2, 3):
                trial.report(step, value + 1.0 / step)
            ending = {"pruned": "poor"} if number == 3 else {"value": value}
            optimizer.tell(trial, **ending)
        optimizer.tell(optimizer.ask(), failed="diverged")
        optimizer.ask()
    with Study(
        {"x": Real(-1, 1)}, minimize="loss", storage=folder / "other.db", study="b"
    ) as other:
        other.add_trial({"x": 0.5}, 0.25)
    with Study(
        {"x": Real(-1, 1)}, minimize="loss", storage=folder / "other.db", study="c"
    ) as other:
        other.add_trial({"x": 0.5}, 1.5)
    with Optimizer(
        {"x": Real(-1, 1), "y": Real(-1, 1)},
        minimize=["cost", "heat"],
        storage=folder / "two.db",
        seed=0,
        n_start=4,
    ) as optimizer:
        for _ in range(6):
            trial = optimizer.ask()
            x, y = trial.params.values()
            optimizer.tell(trial, {"cost": x**2 + y, "heat": (x - 1) ** 2 - y})
    return folder


@pytest.fixture
def runs(finished_runs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The same, from a folder of the test's own."""
    for file in finished_runs.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def storage_for(kind: str) -> str:
    return "two.db" if kind == "pareto" else "one.db"


def dots(file: str) -> np.ndarray:
    """A picture as (height, width, 3) numbers."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


# --------------------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------------------


def test_every_picture_there_is_can_be_asked_for():
    drawn = {name.removeprefix("plot_") for name in plots.__all__ if name.startswith("plot_")}
    assert drawn | {"animation"} == set(_KINDS)
    for kind in PICTURES:
        takes = inspect.signature(getattr(plots, f"plot_{kind}")).parameters
        options = set(_KINDS[kind].takes) - {"compare"}
        assert options <= set(takes), kind
        assert set(takes) - options <= {"study", "ax", "legend"}, kind
        given = inspect.signature(getattr(plots, f"{kind}_data")).parameters
        assert options - set(_KINDS[kind].only_drawn) - {"belief"} <= set(given), kind


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("kind", PICTURES)
def test_each_kind_is_written_as_a_picture(kind):
    size = ["--width", 3.4, "--height", 3, "--dpi", 60]
    assert ok("plot", kind, storage_for(kind), "-o", "größe.png", *size) == ""
    picture = dots("größe.png")
    assert picture.shape == (180, 204, 3)
    assert (picture.min(axis=2) < 200).mean() > 0.01  # something is on it


@pytest.mark.usefixtures("canvas")
def test_an_animation_is_written_as_a_gif():
    with Optimizer(
        {"x": Real(-1, 1)}, minimize="loss", storage="study.db", seed=0, n_start=2
    ) as optimizer:
        for _ in range(4):
            trial = optimizer.ask()
            optimizer.tell(trial, trial.params["x"] ** 2)
    ok("plot", "animation", "study.db", "-o", "run.gif", "--fps", 2)
    with Image.open("run.gif") as film:
        assert film.n_frames > 2
        assert film.info["duration"] == 500
    assert ".gif" in refused(2, "plot", "animation", "study.db", "-o", "run.png")
    said = refused(2, "plot", "animation", "study.db", "-o", "run.gif", "--width", 3)
    assert "--width does not go with animation" in said
    said = refused(2, "plot", "animation", "study.db", "--data", "run.csv")
    assert "--data does not go with animation" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["acquisition", "-x", "degree", "--fixed", "kernel=poly", "--acquisition", "ucb"],
        ["posterior", "-x", "C", "--fixed", "kernel=rbf", "--samples", "2"],
        ["posterior", "-x", "C", "--quantity", "std"],
        ["history", "--optimum", "0", "--by", "seconds"],
        ["contours", "--parameter", "C", "--parameter", "kernel", "--at", "best"],
        ["parallel", "--parameter", "C", "--parameter", "kernel"],
    ],
)
def test_options_are_handed_on(a_run, arguments):
    kind, *options = arguments
    ok("plot", kind, a_run, "-o", "without.png", "--dpi", 60)
    ok("plot", kind, a_run, "-o", "with.png", "--dpi", 60, *options)
    assert not np.array_equal(dots("with.png"), dots("without.png"))


def test_the_ending_says_which_format(a_run):
    ok("plot", "history", a_run, "-o", "a.SVG")
    assert "<svg" in Path("a.SVG").read_text()
    ok("plot", "timeline", a_run, "-o", "a.pdf")
    assert Path("a.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.usefixtures("runs")
def test_several_studies_are_drawn_into_one_picture():
    ok(
        *("plot", "history", "one.db", "-o", "a.svg"),
        *("--compare", "other.db#b", "--compare", "other.db#c"),
    )
    ok("plot", "history", "other.db", "--study", "b", "--compare", "#c", "--data", "a.json")
    rows = json.loads(Path("a.json").read_text())["rows"]
    assert [(row["study"], row["best"]) for row in rows] == [("b", 0.25), ("c", 1.5)]
    ok("plot", "edf", "one.db", "--compare", "other.db#b", "--data", "edf.csv")
    with open("edf.csv", newline="") as file:
        studies = [row["study"] for row in csv.DictReader(file)]
    assert studies[-1] == "b" and set(studies) == {"one", "b"}
    assert "say which study" in refused(
        3, "plot", "edf", "one.db", "--compare", "other.db", "-o", "a.png"
    )
    assert "no file" in refused(3, "plot", "edf", "one.db", "--compare", "no.db", "-o", "a.png")
    said = refused(2, "plot", "timeline", "one.db", "--compare", "other.db#b", "-o", "a.png")
    assert "--compare does not go with timeline" in said
    create(LINE, "--maximize", "gain", where="gain.db")
    line("add", "gain.db", 1, "--param", "x=1")
    said = refused(2, "plot", "history", "one.db", "--compare", "gain.db", "-o", "a.png")
    assert "same objective" in said


# --------------------------------------------------------------------------------------
# Numbers
# --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("kind", PICTURES)
def test_the_numbers_behind_a_picture_are_its_table(kind, monkeypatch):
    storage = storage_for(kind)
    table = getattr(plots, f"{kind}_data")(storage)
    monkeypatch.setattr(plots, f"{kind}_data", lambda study: table)  # once is enough
    ok("plot", kind, storage, "--data", "a.csv")
    ok("plot", kind, storage, "--data", "a.json")
    with open("a.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == list(table)
    assert len(rows) == table.rows > 0
    data = json.loads(Path("a.json").read_text())
    assert set(data["facts"]) == set(table.facts)
    assert len(data["rows"]) == table.rows
    for name, texts, values in zip(head, zip(*rows, strict=True), table.values(), strict=True):
        for text, value, row in zip(texts, values.tolist(), data["rows"], strict=True):
            if value is None or (isinstance(value, float) and math.isnan(value)):
                assert (text, row[name]) == ("", None)
            elif isinstance(value, float) and "row" not in name:
                assert float(text) == value
                assert float(row[name]) == value
            else:
                assert text == (value if isinstance(value, str) else json.dumps(value))
                assert row[name] == value


def test_the_belief_of_a_front_has_numbers_of_its_own(monkeypatch):
    create(LINE, "--minimize", "loss", "--minimize", "heat")
    asked = []

    def believed(study: Study, objectives: list[str]) -> plots.Table:
        asked.append((study.study, list(objectives)))
        return plots.Table({"low": np.array([0.5, math.nan])}, draws=np.int64(7), at={"x": (1,)})

    monkeypatch.setattr(plots, "pareto_belief_data", believed, raising=False)
    names = ["--objective", "heat", "--objective", "loss"]
    ok("plot", "pareto", "study.db", "--belief", *names, "--data", "a.json")
    assert asked == [("default", ["heat", "loss"])]
    assert json.loads(Path("a.json").read_text()) == {
        "facts": {"draws": 7, "at": {"x": [1]}},
        "rows": [{"low": 0.5}, {"low": None}],
    }


def test_a_file_of_numbers_is_written_as_a_whole_or_not_at_all(a_run):
    Path("a.csv").write_text("mine\n")
    said = refused(2, "plot", "history", a_run, "--data", "no/a.csv")
    assert "no/a.csv cannot be written" in said
    refused(2, "plot", "history", a_run, "--optimum", 0.3, "--data", "a.csv")  # one is better
    assert Path("a.csv").read_text() == "mine\n"
    ok("plot", "history", a_run, "--data", "a.csv")
    assert Path("a.csv").read_text().startswith("study,repeat,trial,")
    assert list(Path().glob("*.partial")) == []


# --------------------------------------------------------------------------------------
# What is refused
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["history", "study.db", "-o", "a.png", "-x", "C"], "-x does not go with history"),
        (
            ["posterior", "study.db", "-o", "a.png", "--acquisition", "ucb"],
            "--acquisition does not go with posterior",
        ),
        (["timeline", "study.db", "-o", "a.png", "--name", "loss"], "--name does not go with"),
        (["edf", "study.db", "-o", "a.png", "--parameter", "C"], "--parameter does not go with"),
        (["history", "study.db", "-o", "a.xyz"], "a.xyz: the name must end in a format"),
        (["history", "study.db", "-o", "png"], "png: the name must end in a format"),
        (["history", "study.db", "-o", "no/a.png"], "no/a.png cannot be written"),
        (["history", "study.db", "-o", "."], "is a directory"),
        (["history", "study.db"], "Missing option '-o'"),
        (["history", "study.db", "-o", "a.png", "--data", "a.csv"], "are two outputs"),
        (["history", "study.db", "--data", "a.xlsx"], "a.xlsx: the name must end in .csv or .json"),
        (
            ["curves", "study.db", "--data", "a.csv", "--log"],
            "--log makes no difference to --data",
        ),
        (["history", "study.db", "--data", "a.csv", "--dpi", "100"], "--dpi makes no difference"),
        (["history", "study.db", "-o", "a.png", "--width", "0"], "--width"),
        (
            ["history", "study.db", "-o", "a.png", "--width", "50", "--dpi", "1200"],
            "too large a picture",
        ),
        (["history", "study.db", "-o", "a.png", "--by", "hours"], "'hours' is not one of"),
        (["history", "study.db", "-o", "a.png", "--name", "los"], "Did you mean 'loss'"),
        (["history", "study.db", "-o", "a.png", "--optimum", "0.3"], "better than optimum=0.3"),
        (["acquisition", "study.db", "-o", "a.png", "-x", "c"], "'c'"),
        (["acquisition", "study.db", "-o", "a.png", "--fixed", "c=1"], "unknown parameter 'c'"),
        (["surface", "study.db", "-o", "a.png"], "'surface' is not one of"),
        ([], "Missing argument"),
    ],
)
def test_a_wrong_plot_is_refused(a_run, arguments, message):
    assert message in refused(2, "plot", *arguments)
    assert not Path("a.png").exists()


@pytest.mark.parametrize("kind", PICTURES)
def test_where_there_is_nothing_to_draw_the_exit_code_says_so(kind):
    options = ["--minimize", "loss"] + ["--minimize", "cost"] * (kind == "pareto")
    create(LINE, *options)
    refused(4, "plot", kind, "study.db", "-o", "a.png")
    refused(4, "plot", kind, "study.db", "--data", "a.csv")
    assert not Path("a.png").exists() and not Path("a.csv").exists()


@pytest.mark.usefixtures("runs")
def test_what_needs_no_model_waits_for_no_torch():
    program = """
import sys
from click.testing import CliRunner
from bbmmopt.cli import main
for kind in ("history", "edf", "timeline", "curves"):
    for output in (["-o", "a.png", "--dpi", "40"], ["--data", "a.csv"]):
        done = CliRunner().invoke(main, ["plot", kind, "one.db", *output])
        print(kind, done.exit_code, "torch" in sys.modules)
"""
    said = run_program("-c", program, cwd=Path.cwd()).splitlines()
    assert len(said) == 8
    assert all(text.endswith(" 0 False") for text in said), said
