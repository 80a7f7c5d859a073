"""The scripts of docs/gallery.md and docs/notes.md: what they print and draw is so, and is what the pages show."""

import re
import runpy
import shutil
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "examples"
DOCS = FOLDER.parent / "docs"


def run(name):
    return runpy.run_path(str(FOLDER / f"{name}.py"))


class Gallery:
    """A page of pictures and tables."""

    def __init__(self, folder):
        self.text = (folder / "gallery.md").read_text(encoding="utf-8")
        self.pictures = sorted(folder.glob("pictures/*"))

    def table(self, script):
        """The rows of a table without its head, by their first cell."""
        marked = re.search(f"<!-- {script}:begin -->(.*?)<!-- {script}:end -->", self.text, re.DOTALL)
        rows = [
            [cell.strip() for cell in line.split("|")[1:-1]] for line in marked[1].strip().splitlines()[2:]
        ]
        return {first: [number(cell) for cell in cells] for first, *cells in rows}


def number(cell):
    cell = cell.replace(",", "")
    return float(cell[:-1]) / 100 if cell.endswith("%") else float(cell)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """All scripts with pictures have run."""
    for name in ("matplotlib", "sklearn"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    folder = tmp_path_factory.mktemp("docs")
    shutil.copy(DOCS / "gallery.md", folder)
    run("gallery")["gallery"](folder)
    return Gallery(folder)


def test_the_gallery_shows_what_the_scripts_draw(gallery):
    kept = Gallery(DOCS)
    names = [picture.name for picture in gallery.pictures]
    assert sorted(set(re.findall(r'src="pictures/([^"]+)"', kept.text))) == names
    assert [picture.name for picture in kept.pictures] == names
    for picture in (*gallery.pictures, *kept.pictures):
        assert 5_000 < picture.stat().st_size < 60_000, picture
    for script in run("gallery")["SCRIPTS"]:
        assert kept.table(script).keys() == gallery.table(script).keys()


def test_the_notes_show_what_the_scripts_print(tmp_path):
    """How well networks learn is tested with their scripts; their figures may differ by instruction set."""
    if find_spec("sklearn") is None:
        pytest.skip("sklearn is not installed")
    shutil.copy(DOCS / "notes.md", tmp_path)
    run("gallery")["notes"](tmp_path)
    kept, made = ((folder / "notes.md").read_text(encoding="utf-8") for folder in (DOCS, tmp_path))
    figures = re.compile(r"\s+\d+\.\d\d%")
    assert figures.sub("?", made) == figures.sub("?", kept)
    assert len(figures.findall(made)) == 6 + 1 + 1  # of sequences, LeNet-5 and the mean of its eight on MNIST


def test_activations(gallery):
    rows = gallery.table("activations")
    assert rows["sigmoid"] == [0.25, 0.25, pytest.approx(0.25**10, rel=0.01)]
    assert rows["tanh"] == [1, 1, 1]
    assert rows["softplus"][0] == 0.5


def test_sums_of_relus(gallery):
    script, rows = run("relu_sums"), gallery.table("relu_sums")
    for function in script["FUNCTIONS"]:
        *errors, ratio = rows[function.name]
        assert ratio == pytest.approx(4 if np.isfinite(function.bend) else np.sqrt(2), rel=0.02)
        for units, error in zip(script["UNITS"], errors, strict=True):
            assert error <= 1.05 * script["bound"](function, units)
        model, knots = script["relu_sum"](function, 8), np.linspace(*function.interval, 9)
        np.testing.assert_allclose(model.predict(knots[:, np.newaxis])[:, 0], function.f(knots), atol=1e-12)


def test_a_small_network_is_watched(gallery):
    accuracies = [accuracy for _, accuracy in gallery.table("watch").values()]
    assert accuracies[0] < 0.7
    assert accuracies[-1] > 0.95


def test_apples_and_tomatoes(gallery):
    ((weights, row),) = gallery.table("apples_and_tomatoes").items()
    steps, first, last, training, test = row
    assert weights == "1406"
    assert steps < run("apples_and_tomatoes")["MOST_STEPS"]
    assert last <= 0.01 < 0.2 < first
    assert min(training, test) > 0.95


def test_filters(gallery):
    rows = gallery.table("filters")
    assert rows["val_accuracy"][-1] > 0.95
    assert rows["loss"] == sorted(rows["loss"], reverse=True)


def test_initialisation(gallery):
    rows = gallery.table("initialisation")
    assert min(rows["N(0, 1), tanh"]) > 0.95  # at the ends
    small = rows["N(0, 0.01^2), tanh"]
    assert all(after < 0.2 * before for before, after in pairwise(small))
    assert min(rows["Xavier, tanh"]) > 0.3
    assert rows["He, ReLU"] == pytest.approx([1] * 5, abs=0.15)
    assert rows["sqrt(2 / fan_in), ReLU, narrowing"] == pytest.approx([1] * 5, abs=0.2)
    growth = [(4 / 3) ** (k / 2) for k in range(1, 6)]  # each layer has half the units of the one before
    assert rows["sqrt(4 / (fan_in + fan_out)), ReLU, narrowing"] == pytest.approx(growth, rel=0.2)


def test_optimizers(gallery):
    script, rows = run("optimizers"), gallery.table("optimizers")
    steps = {name: row[1] for name, row in rows.items()}
    assert steps["Newton"] == min(steps.values()) <= 10
    assert max(steps["momentum"], steps["Adam"], steps["AMSGrad"]) < steps["SGD"] / 2
    assert max(steps.values()) == steps["RMSprop"] < script["MOST_STEPS"]
    u, v = script["START"]
    differences = [
        (script["height"](u + a, v + b) - script["height"](u - a, v - b)) / 2e-6
        for a, b in ((1e-6, 0), (0, 1e-6))
    ]
    assert script["slope"](u, v) == pytest.approx(differences, rel=1e-6)


def test_curves_of_optimizers_can_be_told_apart(monkeypatch, tmp_path):
    figure_module = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figure_module.Figure, "savefig", lambda figure, _: drawn.append(figure))
    run("optimizers")["main"](str(tmp_path))
    *panels, last = drawn[0].axes
    assert [line.get_color() for line in last.lines] == [ax.title.get_color() for ax in panels]
    assert (last.get_xlabel(), last.get_ylabel()) == ("step", "f")


def test_batch_sizes(gallery):
    everything, some, single = gallery.table("batch_sizes").values()
    steps, losses, accuracies = ([row[i] for row in (everything, some, single)] for i in (1, 3, 4))
    assert steps == [20, 20 * 45, 20 * 1438]
    assert losses == sorted(losses, reverse=True)
    assert accuracies[1] > 0.95 < accuracies[2]


def test_scripts_need_no_matplotlib_for_their_tables(capsys, monkeypatch):
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    run("relu_sums")["main"]()
    assert "sqrt(x), 0 to 1" in capsys.readouterr().out
