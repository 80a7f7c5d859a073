"""The commands: what they print and write, what they end with, and that what is asked wrongly is told in one line."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import fastnn
from fastnn import nn
from fastnn._contract import KERNELS
from fastnn.cli import main

#: After which a process counts as hanging, in seconds.
LIMIT = 60
CONFIG = """
epochs = 3
batch_size = 16
loss = { type = "CrossEntropyLoss", label_smoothing = 0.1 }
optimizer = { type = "Adam", lr = 0.02, betas = [0.8, 0.99] }
schedule = { type = "cosine_decay", length = 3 }
layers = [
  { type = "Linear", in_features = 2, out_features = 8 },
  { type = "Sequential", layers = ["Tanh", { type = "Dropout", p = 0.1 }] },
  { type = "Linear", in_features = 8, out_features = 2 },
]
"""


#: As `-m fastnn` is, but with Ctrl-C as in a terminal where whoever runs the tests has it ignored.
WITH_CTRL_C = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("fastnn", run_name="__main__", alter_sys=True)
"""


def process(*arguments, code=("-m", "fastnn")):
    """A process that runs a command of the packages under test, wherever it is started."""
    environment = os.environ | {"PYTHONPATH": str(Path(fastnn.__file__).parents[1])}
    line = [sys.executable, "-P", "-W", "error", *code, *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def command(*arguments):
    with process(*arguments) as running:
        try:
            out, err = running.communicate(timeout=LIMIT)
        finally:
            running.kill()
    return running.returncode, out, err


@pytest.fixture(scope="module")
def info():
    status, out, err = command("info")
    assert (status, err) == (0, "")
    return out


def test_info_says(info):
    for word in (fastnn.__version__, np.__version__, sys.version.split()[0]):
        assert word in info
    for title in ("processor", "instruction set", "compiler", "threads", "environment"):
        assert f"\n{title} " in info


def test_info_has_every_kernel(info):
    for kernel in KERNELS:
        assert f"\n{kernel} " in info


def test_info_has_every_backend(info):
    for name in ("cython", "numba", "numpy"):
        assert f"backend {name}" in info


@pytest.mark.parametrize("arguments", [(), ("nonsense",)])
def test_other_words_are_refused(arguments):
    status, _, err = command(*arguments)
    assert status == 2
    assert "info" in err


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current directory, with samples in two classes as an .npz and a .csv, and a configuration."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y = (x[:, 0] > x[:, 1]).astype(int)
    np.savez("samples.npz", x=x, y=y)
    rows = [f"{a:.6f},{b:.6f},{label}" for (a, b), label in zip(x, y, strict=True)]
    Path("samples.csv").write_text("\n".join(["first,second,label", *rows]))
    Path("network.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Run a command in this process: exit status, and the lines of both outputs."""

    def run(*arguments):
        try:
            status = main([*map(str, arguments)])
        except SystemExit as stopped:
            status = stopped.code
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    return run


def train(run, *arguments):
    return run("train", "--data", "samples.npz", "--hidden", "16", "--lr", "0.02", *arguments)


def test_train_predict_and_trace(folder, run):
    status, out, err = train(run, "--epochs", 10, "--save", "model.safetensors")
    assert (status, err) == (0, [])
    assert "Linear(2, 16, activation='relu')" in out[1]
    epochs = [line for line in out if line.startswith("epoch ")]
    assert len(epochs) == 10
    for metric in ("loss ", "accuracy ", "lr 0.02", "seconds ", "val_loss ", "val_accuracy "):
        assert metric in epochs[-1]
    assert out[-1] == "saved model.safetensors"
    model = nn.load("model.safetensors")
    x, y = (np.load("samples.npz")[name] for name in "xy")
    right = np.mean(model.predict(x).argmax(axis=1) == y)
    assert right > 0.9

    status, out, err = run("predict", "model.safetensors", "--data", "samples.csv")
    assert status == 0
    assert [*map(int, out)] == model.predict(x).argmax(axis=1).tolist()
    assert err[0].startswith("80 samples: loss ")
    assert err[0].endswith(f"accuracy {right:.4g}")

    status, out, err = run("trace", "model.safetensors", "--data", "samples.npz", "--sample", 7)
    assert (status, err) == (0, [])
    traced = fastnn.trace(model, x[7:8], y[7:8], loss=nn.CrossEntropyLoss(), learning_rate=0.1)
    assert "\n".join(out) == str(traced)


def test_a_configuration_and_options_in_place_of_its_entries(folder, run):
    status, out, err = run("train", "network.toml", "--data", "samples.csv", "--save", "a.safetensors")
    assert (status, err) == (0, [])
    assert [line.partition("lr ")[2].partition(",")[0] for line in out[6:9]] == ["0.02", "0.015", "0.005"]
    assert repr(nn.load("a.safetensors")[1]) == "Sequential(Tanh(), Dropout(p=0.1))"
    status, out, _ = run("train", "network.toml", "--data", "samples.csv", "--epochs", 1, "--lr", "0.5")
    assert status == 0
    assert "epoch 1/1" in out[-1]
    assert "lr 0.5" in out[-1]
    status, out, _ = run("trace", "network.toml", "--data", "samples.csv", "--markdown")
    assert status == 0
    assert "| Error | `loss` | `CrossEntropyLoss(y, target)` |" in "\n".join(out)


def test_training_is_reproducible(folder, run):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert train(run, "--seed", seed, "--epochs", 2, "--save", name)[0] == 0
    contents = [Path(name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


def test_predictions_are_saved(folder, run):
    train(run, "--epochs", 1, "--save", "m")
    outputs = nn.load("m").predict(np.load("samples.npz")["x"])
    for arguments, expected in (((), outputs.argmax(axis=1)), (("--outputs",), outputs)):
        for name in ("out.npy", "out.csv"):
            status, out, err = run("predict", "m", "--data", "samples.npz", "--output", name, *arguments)
            assert (status, err) == (0, [])
            assert out[0] == f"saved {name}"
            assert "accuracy" in out[1]
            saved = np.load(name) if name == "out.npy" else np.loadtxt(name, delimiter=",")
            np.testing.assert_allclose(saved, expected, rtol=1e-8)


def test_samples_without_labels(folder, run):
    train(run, "--epochs", 1, "--save", "m")
    x = np.load("samples.npz")["x"]
    np.savez("unknown.npz", x=x)
    np.savetxt("unknown.csv", x, delimiter=",")
    expected = [*map(str, nn.load("m").predict(x).argmax(axis=1))]
    for source in ("unknown.npz", "unknown.csv"):
        assert run("predict", "m", "--data", source) == (0, expected, [])
    status, _, err = run("train", "--data", "unknown.npz")
    assert status == 2
    assert "no labels" in err[0]


def test_regression_and_two_classes_by_one_output(folder, run):
    x = np.random.default_rng(0).normal(size=(60, 2))
    np.savetxt("line.csv", np.column_stack([x, x @ [1.0, 2.0]]), delimiter=",")
    status, out, _ = run(
        "train", "--data", "line.csv", "--hidden", "8", "--lr", "0.05", "--epochs", 40, "--save", "line"
    )
    assert status == 0
    assert "accuracy" not in out[-2]
    assert float(out[-2].partition("val_loss ")[2]) < 0.1
    status, out, err = run("predict", "line", "--data", "line.csv")
    assert len(out) == 60
    assert float(err[0].partition("loss ")[2]) < 0.1

    loss = ("--loss", "binary_cross_entropy_with_logits")
    assert train(run, *loss, "--save", "two")[0] == 0
    _, _, err = run("predict", "two", "--data", "samples.npz", *loss)
    assert float(err[0].partition("accuracy ")[2]) > 0.9


@pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_digits(folder, run):
    status, out, _ = run("train", "--data", "digits", "--epochs", 2, "--save", "m", "--batch-size", 64)
    assert status == 0
    assert "Flatten()" in out[1]
    assert run("predict", "m", "--data", "digits")[0] == 0


@pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_the_configuration_of_the_readme(folder, run):
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    Path("network.toml").write_text(text.partition("```toml\n")[2].partition("```")[0])
    status, out, err = run("train", "network.toml", "--data", "digits")
    assert (status, err) == (0, [])
    assert float(out[-1].partition("val_accuracy ")[2]) > 0.95


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_history_is_drawn(folder, run):
    for name, begins in (("loss.png", b"\x89PNG"), ("loss.svg", b"<?xml"), ("loss.pdf", b"%PDF")):
        status, out, _ = train(run, "--epochs", 2, "--plot", name)
        assert status == 0
        assert out[-1] == f"saved {name}"
        assert Path(name).read_bytes().startswith(begins)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of the definitions
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_loss_that_is_no_number(folder, run):
    status, out, err = train(run, "--lr", "1e30", "--save", "m")
    assert status == 1
    assert len(err) == 1
    for words in ("in epoch 1, batch 2, at learning rate 1e+30", "nothing is saved"):
        assert words in err[0]
    assert not Path("m").exists()
    Path("growing.toml").write_text('schedule = { type = "exponential_decay", factor = 1e30 }')
    status, out, err = run("train", "growing.toml", "--data", "samples.npz", "--save", "m")
    assert (status, len(err)) == (1, 1)
    assert "in epoch 2" in err[0]
    assert out[-1] == "saved m"
    assert run("train", "--data", "samples.npz", "--epochs", "1", "--save", "one")[0] == 0
    assert Path("m").read_bytes() == Path("one").read_bytes()


ONE_LINE = {
    "no data": ("train", ["--data"]),
    "unknown data": ("train --data nowhere", ["nowhere", "digits, a folder"]),
    "folder without digits": ("train --data .", ["no digits", "train-images"]),
    "unknown optimizer": ("train --data samples.npz --optimizer adan", ["'adan'", "sgd, adagrad"]),
    "unknown activation": ("train --data samples.npz --activation relo", ["'relo'", "relu, leaky_relu"]),
    "sizes": ("train --data samples.npz --hidden 8;8", ["'8;8'", "128,64"]),
    "no epochs": ("train --data samples.npz --epochs 0", ["epochs is 0"]),
    "no rate": ("train --data samples.npz --optimizer sgd", ["SGD", "'lr'"]),
    "share": ("train --data samples.npz --validation 1", ["validation is 1.0"]),
    "no such folder": ("train --data samples.npz --save no/m", ["--save is 'no/m'"]),
    "folder that is not there": ("train --data samples.npz --save no/", ["--save is 'no/'"]),
    "unknown picture": ("train --data samples.npz --plot a.gif", ["'a.gif'", ".png"]),
    "no model": ("predict nowhere --data samples.npz", ["nowhere"]),
    "no model, but a folder": ("predict . --data samples.npz", ["predict: .: "]),
    "no model for a trace": ("trace nowhere --data samples.npz", ["nowhere: No such file"]),
    "no such folder for an output": ("predict m --data samples.npz --output no/a.csv", ["is 'no/a.csv'"]),
    "no model, but samples": ("predict samples.npz --data samples.npz", ["samples.npz: not a model"]),
    "unknown output": ("predict m --data samples.npz --output a.txt", ["'a.txt'", ".npy or .csv"]),
    "layers twice": ("train network.toml --data samples.npz --hidden 8", ["has layers"]),
    "no configuration": ("train no.toml --data samples.npz", ["no.toml"]),
    "no such sample": ("trace network.toml --data samples.npz --sample 80", ["--sample is 80", "0 to 79"]),
}


@pytest.mark.parametrize("name", ONE_LINE)
def test_what_is_asked_wrongly_is_told_in_one_line(name, folder, run):
    words, complaint = ONE_LINE[name]
    before = sorted(folder.iterdir())
    status, out, err = run(*words.split())
    assert (status, out, len(err)) == (2, [], 1)
    assert all(part in err[0] for part in complaint), err
    assert sorted(folder.iterdir()) == before


WRONG_CONFIGS = {
    "no TOML": ("epochs = ", "not TOML"),
    "unknown entry": ("epoch = 3", "unknown entry 'epoch'; expected some of layers"),
    "unknown layer": ('layers = ["Relu"]', "layer 0: unknown layer 'Relu'; expected one of"),
    "a frame": ('layers = ["Affine"]', "unknown layer 'Affine'"),
    "unknown argument": ('layers = [{ type = "ReLU", slope = 1 }]', "layer 0: ReLU: got an unexpected"),
    "missing argument": ('layers = ["Linear"]', "'in_features'; expected in_features, out_features, bias"),
    "wrong argument": ('layers = [{ type = "Dropout", p = 2 }]', "p is 2"),
    "no list": ('layers = "ReLU"', "layers is 'ReLU'"),
    "no table": ("layers = [3]", "layer 0: a layer is described by 3"),
    "unknown loss": ('loss = "Loss"', "unknown loss 'Loss'; expected one of CrossEntropyLoss"),
    "unknown optimizer": ('optimizer = "adam"', "unknown optimizer 'adam'; expected one of SGD"),
    "optimizer's argument": ('optimizer = { type = "Adam", beta = 1 }', "Adam: got an unexpected"),
    "number as text": ('epochs = "3"', "epochs is '3'; expected an integer"),
    "hidden": ("hidden = 3", "hidden is 3; expected a list"),
    "schedule's argument": ('schedule = "step_decay"', "step_decay: missing"),
    "per": ('schedule = { type = "exponential_decay", factor = 1, per = "year" }', "per is 'year'"),
    "sizes": ('layers = [{ type = "Linear", in_features = 3, out_features = 2 }]', "layer 0, Linear(3, 2)"),
    "classes": ('layers = [{ type = "Linear", in_features = 2, out_features = 1 }]', "labels from 0 to 1"),
    "other layers": (
        """layers = [
            { type = "Linear", in_features = 2, out_features = 9 },
            "Flatten",
            { type = "RNN", input_size = 1, hidden_size = 2 },
        ]""",
        "layer 2, RNN(1, 2): input has shape (1, 9); expected (N, T, 1)",
    ),
}


@pytest.mark.parametrize("name", WRONG_CONFIGS)
def test_wrong_configurations(name, folder, run):
    text, complaint = WRONG_CONFIGS[name]
    Path("network.toml").write_text(text)
    status, _, err = run("train", "network.toml", "--data", "samples.npz")
    assert (status, len(err)) == (2, 1)
    assert complaint in err[0]


class Attack:
    """Its pickle would set a flag when it is loaded."""

    ran = False

    def __reduce__(self):
        return setattr, (Attack, "ran", True)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", "", "no samples"),
        ("a.csv", "x,y\n", "no samples"),
        ("a.csv", "1,2,0\n1,two,1\n", "two"),
        ("a.csv", "1,2,0\n1,1\n", "columns"),
        ("a.csv", b"\xff\xfe1,2", "utf-8"),
        ("a.csv", "1\n2\n", "x has shape (2, 0)"),
        ("a.csv", "1,2,0.5\n1,2,nan\n", ""),
        ("a.npz", "nothing", "a.npz"),
        ("a.npz", b"PK\x03\x04 and no more", "a.npz"),
        ("a.npz", {"z": np.ones(3)}, "it has z; expected x"),
        ("a.npz", {"x": np.ones((3, 2)), "y": np.ones(2)}, "as many targets"),
        ("a.npz", {"x": np.ones((0, 2)), "y": np.ones(0)}, "x has shape (0, 2)"),
        ("a.npz", {"x": np.array([["a"]]), "y": np.ones(1)}, "x has dtype <U1"),
        ("a.npz", {"x": np.array([Attack()]), "y": np.ones(1)}, "allow_pickle"),
        ("a.npz", {"x": np.ones((3, 2)), "y": np.array([0, 1, 9])}, "labels, whole numbers from 0 on"),
        ("a.txt", "1,2,3", "expected digits, a folder"),
    ],
)
def test_bad_samples_are_refused(name, content, complaint, folder, run):
    if isinstance(content, dict):
        np.savez(name, **content)
    else:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    status, _, err = run("train", "--data", name)
    assert status == (2 if complaint else 1)
    assert len(err) == 1
    assert complaint in err[0]
    assert not Attack.ran


def test_missing_packages_are_named_before_training(folder, run, monkeypatch):
    monkeypatch.setattr("fastnn.cli.commands.find_spec", lambda name: None)
    for option, extra in (("--save", "safetensors"), ("--plot", "plot")):
        status, out, err = train(run, option, "a.png")
        assert (status, out) == (2, [])
        assert f"pip install 'fastnn-kernels[{extra}]'" in err[0]


def wait_for_line(running, word):
    """Read what a process prints up to the line with `word`; the limit of the test ends a wait in vain."""
    for line in running.stdout:
        if word in line:
            return
    pytest.fail(f"no {word!r} before the end: {running.stderr.read()}")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.timeout(LIMIT)
def test_ctrl_c_saves_the_last_whole_weights(folder):
    arguments = "train", "--data", "samples.npz", "--epochs", "1000000", "--save", "m"
    with process(*arguments, code=("-c", WITH_CTRL_C)) as running:
        try:
            wait_for_line(running, "epoch       3/1000000")
            running.send_signal(signal.SIGINT)
            out, err = running.communicate(timeout=LIMIT / 2)
        finally:
            running.kill()
    assert running.returncode == 130
    assert "Ctrl-C in epoch" in err
    assert "Traceback" not in err
    assert out.splitlines()[-1] == "saved m"
    assert all(np.isfinite(array).all() for array in nn.load("m").state_dict().values())
    assert sorted(path.name for path in folder.iterdir()) == [
        "m",
        "network.toml",
        "samples.csv",
        "samples.npz",
    ]


@pytest.mark.timeout(LIMIT)
def test_a_reader_that_has_seen_enough(folder):
    with process("info") as running:
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == ""
