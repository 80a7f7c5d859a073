"""The worked examples of the notes, digit by digit; the scripts in examples/ run and say what they should."""

import os
import runpy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from worked_examples import EXAMPLES

import fastnn
from fastnn import data, nn

FOLDER = Path(__file__).parents[1] / "examples"
#: The names of the numbers of the notes in a trace.
NAMES = {"h": "h1", "delta_hidden": "delta1"}


def run(name):
    return runpy.run_path(str(FOLDER / f"{name}.py"))


@pytest.fixture(scope="module")
def notes():
    return run("worked_examples")


def approx(expected):
    return pytest.approx(np.array(expected), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples_to_the_last_digit(notes, name):
    exact, trace = EXAMPLES[name], notes["EXAMPLES"][name].trace()
    last = "2" if "z2" in exact else "1"
    for key, number in exact.items():
        if key not in ("learning_rate", "weight1", "bias1", "weight2", "bias2"):
            assert trace[{**NAMES, "delta_out": f"delta{last}"}.get(key, key)] == approx(number), key


def test_factors_of_the_chain_rule(notes):
    """What the notes have on the way to a gradient: dE/dy and dy/ds of E1, and dE/dB of E5's hidden unit B."""
    t = notes["EXAMPLES"]["E1"].trace()
    assert t["grad_y"][0] == pytest.approx(0.8444, abs=5e-5)
    assert t["delta1"][0] / t["grad_y"][0] == pytest.approx(0.1099, abs=5e-5)
    t = notes["EXAMPLES"]["E5"].trace()
    b = t["h1"][1]
    assert t["delta1"][1] / (b * (1 - b)) == pytest.approx(0.02605, abs=5e-6)


def test_each_misprint_is_wrong_and_explained(notes):
    """What is printed is not the number rounded, and the mistaken arithmetic leads to it."""
    traces = {name: example.trace() for name, example in notes["EXAMPLES"].items()}
    for one in notes["MISPRINTS"]:
        right, printed = traces[one.example][one.name][one.at], float(one.printed)
        assert abs(right - printed) > 0.5 * one.unit, one
        assert one.mistaken(traces[one.example]) == pytest.approx(printed, abs=0.6 * one.unit), one


def test_e6_cross_entropy(notes):
    values = notes["cross_entropy"]()
    assert values["sigmoid"] == pytest.approx([0.00669, 0.26894, 0.73106, 0.99331], abs=5e-6)
    assert values["normalised"] == pytest.approx([0.00334, 0.13447, 0.36553, 0.49666], abs=1e-5)
    assert values["softmax"] == pytest.approx([0.00004, 0.00243, 0.01794, 0.97959], abs=6e-6)
    assert values["cross-entropy"] == pytest.approx(0.0206256, abs=5e-8)


def test_e7_to_e10(notes):
    assert [notes["ascent"](eta) for eta in (0.1, 0.3, 0.5)] == [
        pytest.approx(after) for after in ((-1.5, 3.1), (-0.5, 3.3), (0.5, 3.5))
    ]
    assert notes["chain_rule"]() == {"f": -28, "df/dx": -4, "df/dy": -4, "df/dz": 7}
    assert notes["sizes"]() == (20, 7)
    assert notes["apples_and_tomatoes"]().parameters().size == 1406


def test_e11_steepest_ascent(notes):
    best, most = notes["steepest_ascent"]()
    assert best == pytest.approx([4, 3])
    assert most == pytest.approx(25)
    angle = np.linspace(0, 2 * np.pi, 1000)
    assert (4 * 5 * np.cos(angle) + 3 * 5 * np.sin(angle) <= most + 1e-12).all()


def test_the_script_of_the_notes_prints_what_they_print(notes, capsys):
    notes["main"]()
    printed = capsys.readouterr().out
    for words in (
        "loss = HalfSquaredError(y, target)  = 0.29837111",
        "| E4 | `new_w2[0, 0]` | 0.00025 | -0.00025413 | the sign is lost |",
        "cross-entropy = 0.0206256",
        "eta 0.3 -> (-0.5, 3.3)",
        "1,406",
        "E5's rule for w11 is printed with a plus",
        "4x + 3y is 25 at (4, 3)",
    ):
        assert words in printed


def test_logic_gates(capsys):
    gates = run("logic_gates")
    assert gates["by_hand"]() == gates["GATES"]
    mistakes = gates["by_the_rule"]()
    assert mistakes["AND"][-1] == mistakes["OR"][-1] == 0
    assert 0 not in mistakes["XOR"]
    possible = gates["of_one_unit"]()
    assert len(possible) == 14
    assert gates["GATES"]["XOR"] not in possible
    gates["main"]()
    assert "XOR is not among them" in capsys.readouterr().out


@pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_digits(capsys):
    run("digits")["main"]()
    printed = capsys.readouterr().out
    share = float(printed.partition("best of 10 epochs: ")[2].partition("%")[0])
    assert share >= 97.5
    assert "Conv2d(16, 32, 3, padding=1)" in printed


def test_sequence(capsys):
    run("sequence")["main"]()
    lines = (line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    share = {name.strip(): float(percent.rstrip("%")) for name, percent in lines}
    assert len(share) == 6
    for name, percent in share.items():
        if name.endswith("recurrent"):
            assert percent > 99, name
        else:
            assert percent < 60, name


def lenet(capsys, *arguments):
    """The share of test digits that LeNet-5 says to have right."""
    run("lenet")["main"]([*arguments])
    printed = capsys.readouterr().out
    assert "61,706" in printed  # parameters
    return float(printed.partition("5 epochs: ")[2].partition("%")[0])


@pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_lenet_learns_the_digits(capsys):
    assert lenet(capsys) >= 96.5


@pytest.mark.mnist
def test_lenet_learns_mnist(capsys):
    assert lenet(capsys, os.environ["FASTNN_MNIST"]) >= 97.5


@pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_lenet_is_reproducible():
    example = run("lenet")
    images, labels = data.load_digits()
    images = example["enlarged"](images[:200])
    results = [example["learn"](images, labels[:200], seed, progress=False) for seed in (1, 1, 2)]
    assert results[0] == results[1]
    assert results[0]["loss"] != results[2]["loss"]


def test_lenet_enlarges_and_shifts():
    example = run("lenet")
    ramp = np.arange(8.0).reshape(1, 1, 8, 1) + 10 * np.arange(8.0)
    large = example["enlarged"](ramp)
    assert large.shape == (1, 1, 28, 28)
    np.testing.assert_allclose(np.diff(large[0, 0, 2:-2], axis=0), 8 / 28)
    np.testing.assert_allclose(np.diff(large[0, 0, :, 2:-2], axis=1), 80 / 28)
    images = np.zeros((50, 1, 5, 5))
    images[:, 0, 2, 2] = 1
    shifts = example["Shifts"](images, seed=0)
    shifts.epoch_begin(None)
    places = {(row, column) for _, _, row, column in np.argwhere(images).tolist()}
    assert images.sum() == 50
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}


def test_a_trace_of_any_network_leaves_it_alone():
    layers = nn.Conv2d(1, 2, 3, activation="relu"), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.5)
    model = nn.Sequential(*layers, nn.Sequential(nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 3, bias=False)))
    model.initialize(random_state=0)
    before = model.state_dict()
    x = np.random.default_rng(0).normal(size=(2, 1, 6, 6)).astype(np.float32)
    trace = fastnn.trace(model, x, [0, 2], loss=nn.CrossEntropyLoss(), learning_rate=0.1)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    np.testing.assert_allclose(trace["y"], model.eval()(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trace["new_w1"], trace["w1"] - 0.1 * trace["grad_w1"], rtol=1e-6, atol=1e-7)
    assert trace["maxpool2d_2"].shape == (2, 2, 2, 2)
    assert "b3" not in trace
    model.train()
    model[3].p = 0  # nothing dropped
    loss, grad = nn.CrossEntropyLoss().value_and_grad(model(x), [0, 2])
    model.backward(grad)
    assert trace["loss"] == pytest.approx(loss)
    np.testing.assert_allclose(trace["grad_w1"], model[0].weight.grad, rtol=1e-4, atol=1e-7)


def test_a_trace_of_normalisation():
    layers = nn.Linear(2, 3, dtype=np.float64), nn.BatchNorm1d(3, dtype=np.float64), nn.Tanh()
    model = nn.Sequential(*layers, nn.LayerNorm(3, dtype=np.float64), nn.Linear(3, 1, dtype=np.float64))
    model.initialize(random_state=0)
    before, x = model.state_dict(), np.random.default_rng(0).normal(size=(4, 2))
    trace = fastnn.trace(model, x, np.ones((4, 1)), loss=nn.MSELoss(), learning_rate=0.1)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert (trace["w2"] == 1).all()
    assert trace["batchnorm1d_1"] == approx(
        (trace["z1"] - trace["z1"].mean(0)) / np.sqrt(trace["z1"].var(0) + 1e-5)
    )
    assert trace["new_running_mean2"] == approx(0.1 * trace["z1"].mean(0))
    assert trace["new_num_batches_tracked2"] == 1
    assert trace["new_b3"] == approx(trace["b3"] - 0.1 * trace["grad_b3"])
    assert trace["delta4"] == approx(trace["grad_y"])
    model.parameters().zero_grad()
    _, grad = nn.MSELoss().value_and_grad(model(x), np.ones((4, 1)))
    model.backward(grad)
    assert trace["grad_w2"] == approx(model[1].weight.grad)
    with pytest.raises(ValueError, match=r"BatchNorm1d\(3, dtype=float64\): input has shape \(3,\)"):
        fastnn.trace(model, x[0], [1.0], loss=nn.MSELoss(), learning_rate=0.1)


def test_a_trace_of_a_recurrent_network():
    layers = nn.RNN(2, 3, 2, dtype=np.float64), nn.Last(), nn.Linear(3, 1, dtype=np.float64)
    model = nn.Sequential(*layers).initialize(random_state=0)
    x = np.random.default_rng(0).normal(size=(4, 5, 2))
    trace = fastnn.trace(model, x, np.ones((4, 1)), loss=nn.MSELoss(), learning_rate=0.1)
    _, grad = nn.MSELoss().value_and_grad(model(x), np.ones((4, 1)))
    model.backward(grad)
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l1", "bias_hh_l1"):
        short = name.replace("weight", "w1").replace("bias", "b1")
        parameter = getattr(model[0], name)
        assert trace[short] == approx(parameter.data)
        assert trace[f"grad_{short}"] == approx(parameter.grad)
        assert trace[f"new_{short}"] == approx(parameter.data - 0.1 * parameter.grad)
    assert trace["rnn_0"].shape == trace["delta1"].shape == (4, 5, 3)
    assert trace["last_1"] == approx(trace["rnn_0"][:, -1])
    assert "z2 = w2 last_1 + b2" in str(trace)


def test_a_trace_prints_as_text_and_as_a_table():
    model = nn.Sequential(nn.Linear(1, 1, dtype=np.float64), nn.Tanh())
    model.load_state_dict({"0.weight": [[0.5]], "0.bias": [0]})
    trace = fastnn.trace(model, [1.0], [0.0], loss=nn.MSELoss(), learning_rate=1)
    assert "\nForward\n  z1 = w1 x + b1                      = [0.5]\n" in str(trace)
    assert "| Forward | `y` | `tanh(z1)` | `[0.46211716]` |" in trace.markdown()
    assert len(trace) == len(list(trace)) == len(trace.lines)
