"""Models in safetensors files: what is saved comes back, and bad files are clear errors in which nothing runs."""

import importlib.util
import json
import os
import pickle
import re
import struct
import sys

import numpy as np
import pytest

from fastnn import io, nn


def network():
    return nn.Sequential(
        nn.Conv2d(1, 4, (3, 2), padding=((1, 0), (0, 1)), activation="gelu"),
        nn.BatchNorm2d(4, eps=1e-4, momentum=None),
        nn.LayerNorm((7, 8), bias=False),
        nn.MaxPool2d(2, padding="same"),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Sequential(nn.Linear(64, 3, bias=False, dtype=np.float64), nn.LeakyReLU(0.2)),
    )


def test_a_model_comes_back(tmp_path):
    model, path = network(), tmp_path / "model.safetensors"
    x = np.random.default_rng(0).normal(size=(5, 1, 8, 8))
    model(x)  # so that there are running statistics
    model.eval().save(path)
    loaded = nn.load(path)
    assert loaded[1].num_batches_tracked.data == 1
    assert not loaded.training
    assert repr(loaded) == repr(model)
    assert len(loaded.parameters().flats) == 2
    np.testing.assert_array_equal(loaded(x), model(x))
    loaded.save(path)
    assert repr(nn.load(str(path))) == repr(model)


def test_a_recurrent_model_comes_back(tmp_path):
    layers = (
        nn.RNN(2, 3, num_layers=2, nonlinearity="relu", dtype=np.float64),
        nn.RNN(3, 2, bias=False),
        nn.Last(),
    )
    model, path = nn.Sequential(*layers).eval(), tmp_path / "model.safetensors"
    model.save(path)
    loaded = nn.load(path)
    assert repr(loaded) == repr(model)
    x = np.random.default_rng(0).normal(size=(4, 5, 2))
    np.testing.assert_array_equal(loaded(x), model(x))


def test_an_interrupted_save_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    network().save(path)
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, interrupt)
            with pytest.raises(KeyboardInterrupt):
                network().save(path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


def test_a_layer_of_ones_own_is_not_saved(tmp_path):
    class Mine(nn.Linear):
        pass

    with pytest.raises(TypeError, match=r"Mine\(2, 2\) is not a layer of fastnn.nn"):
        nn.Sequential(Mine(2, 2)).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def written(header, content=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def tensor(shape=(2,), begin=0, end=8, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


class Attack:
    """Its pickle would set a flag when it is loaded."""

    ran = False

    def __reduce__(self):
        return setattr, (Attack, "ran", True)


BAD_FILES = {
    "empty": b"",
    "short": b"\x01\x00\x00",
    "pickle": pickle.dumps(Attack(), protocol=4) * 9,
    "pickle in the header": written(pickle.dumps(Attack(), protocol=4)),
    "header longer than the file": struct.pack("<Q", 99) + b"{}",
    "enormous header": struct.pack("<Q", 2**64 - 1) + b"{}",
    "no text": written(b"\xff\xfe"),
    "no JSON": written(b"{"),
    "deep JSON": written(b'{"a":' * 100_000),
    "a list": written([]),
    "a name twice": written(b'{"a":1,"a":2}'),
    "metadata of numbers": written({"__metadata__": {"a": 1}}),
    "no tensor": written({"a": 1}),
    "unknown dtype": written({"a": tensor(dtype="F7")}, bytes(8)),
    "dtype of objects": written({"a": tensor(dtype=["O"])}, bytes(8)),
    "negative shape": written({"a": tensor((-2, -1))}, bytes(8)),
    "shape of floats": written({"a": tensor((2.0,))}, bytes(8)),
    "shape of booleans": written({"a": tensor((True, 2))}, bytes(8)),
    "enormous shape": written({"a": tensor((2**61, 2**61))}, bytes(8)),
    "backward offsets": written({"a": tensor(begin=8, end=0)}, bytes(8)),
    "wrong length": written({"a": tensor(end=4)}, bytes(8)),
    "overlap": written({"a": tensor(), "b": tensor(begin=4, end=12)}, bytes(12)),
    "gap": written({"a": tensor(), "b": tensor(begin=12, end=20)}, bytes(20)),
    "beyond the end": written({"a": tensor((2**40,), end=2**42)}, bytes(8)),
    "truncated": written({"a": tensor()}, bytes(7)),
    "oversized": written({"a": tensor()}, bytes(9)),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused(name, tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(BAD_FILES[name])
    with pytest.raises(io.FormatError, match=r"not a model that fastnn can load: .+") as caught:
        nn.load(path)
    assert str(caught.value).startswith(str(path))
    assert not Attack.ran


LINEAR = {"type": "Linear", "in_features": 2, "out_features": 1, "bias": False}
RNN = {"type": "RNN", "input_size": 2, "hidden_size": 1, "bias": False}
NORM = {"type": "BatchNorm1d", "num_features": 2}
RIGHT = {"0.weight": tensor((1, 2))}


def nested(depth):
    """The description of a network in a network in a network ..., as a list of layers."""
    return [{"type": "Sequential", "layers": nested(depth - 1) if depth > 1 else [LINEAR]}]


BAD_MODELS = {
    "foreign": (None, "say nothing of fastnn"),
    "other version": ({"version": 99, "model": {}}, "not of version 1"),
    "no description": ([], "not of version 1"),
    "no layer": ("Sequential", "described by 'Sequential'"),
    "no sequence": (LINEAR, "is a Linear; expected a Sequential"),
    "unknown layer": ([{"type": "system"}], "unknown layer 'system'"),
    "dotted layer": ([{"type": "os.system", "command": "true"}], "unknown layer"),
    "frame": ([{"type": "Affine"}], "unknown layer 'Affine'"),
    "frame of normalisation": ([NORM | {"type": "BatchNorm"}], "unknown layer 'BatchNorm'"),
    "no name": ([{"type": ["Linear"]}], "unknown layer"),
    "unknown argument": ([{**LINEAR, "hook": "x"}], "hook"),
    "missing argument": ([{"type": "Linear"}], "in_features"),
    "wrong argument": ([{**LINEAR, "in_features": "2"}], "in_features is '2'"),
    "negative size": ([{**LINEAR, "in_features": -2}], "in_features is -2"),
    "enormous size": (
        [{**LINEAR, "in_features": 2**30, "out_features": 2**30}],
        r"0.weight has shape \(1, 2\)",
    ),
    "object dtype": ([{**LINEAR, "dtype": "O"}], "unknown dtype"),
    "other dtype": ([{**LINEAR, "dtype": "float64"}], "0.weight has dtype F32; expected that of float64"),
    "negative variance": ([{**NORM, "eps": -1}], "eps is -1"),
    "no momentum": ([{**NORM, "momentum": "x"}], "momentum is 'x'"),
    "enormous statistics": ([{**NORM, "num_features": 2**31 - 1}], "lacks .*0.running_mean"),
    "many axes": ([{"type": "LayerNorm", "normalized_shape": [2**31 - 1] * 1000}], "has 1000"),
    "statistics of floats": ([{**NORM, "affine": "no"}], "affine is 'no'"),
    "enormous depth": ([{**RNN, "num_layers": 2**31 - 1}], "num_layers is 2147483647 in sum, with 1 tensors"),
    "depth of many": ([{"type": "Sequential", "layers": [RNN | {"num_layers": 1}] * 9}], "is 9 in sum"),
    "negative depth": ([{**RNN, "num_layers": -5}, {**RNN, "num_layers": 1}], "num_layers is -5"),
    "depth of text": ([{**RNN, "num_layers": "9"}], "num_layers is '9'"),
    "other function": ([{**RNN, "nonlinearity": "system"}], "nonlinearity is 'system'"),
    "enormous state": ([{**RNN, "hidden_size": 2**31 - 1}], "lacks 0.weight_hh_l0"),
    "order of text": ([{**RNN, "batch_first": "x"}], "batch_first is 'x'"),
    "missing tensor": ([{**LINEAR, "bias": True}], "lacks 0.bias"),
    "more tensors": ([], "unknown 0.weight"),
    "layers no list": ({"type": "Sequential", "layers": {}}, "layers are not a list"),
    "nested": (nested(65), "networks in networks are more than 64 deep"),
    "deeply nested": (nested(200), "networks in networks are more than 64 deep"),
    "many layers": ([{**LINEAR, "bias": True}] * 30_000, r"lacks 0\.bias, .* and 59,989 others$"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models_are_refused(name, tmp_path):
    model, complaint = BAD_MODELS[name]
    if isinstance(model, list) and name != "no description":
        model = {"type": "Sequential", "layers": model}
    described = model if name in ("other version", "no description") else {"version": 1, "model": model}
    metadata = {} if model is None else {"__metadata__": {"fastnn": json.dumps(described)}}
    path = tmp_path / "bad"
    path.write_bytes(written({**metadata, **RIGHT}, bytes(8)))
    with pytest.raises(io.FormatError, match=complaint):
        nn.load(path)


def test_statistics_of_another_dtype_are_refused(tmp_path):
    model, path = nn.Sequential(nn.BatchNorm1d(2, affine=False)), tmp_path / "bad"
    model.save(path)
    content = path.read_bytes()
    changed = content.replace(b'"I64"', b'"F64"')
    assert changed != content
    path.write_bytes(changed)
    with pytest.raises(io.FormatError, match=r"0.num_batches_tracked has dtype F64; expected that of int64"):
        nn.load(path)


def test_a_right_file_is_not_refused(tmp_path):
    path = tmp_path / "good"
    description = json.dumps({"version": 1, "model": {"type": "Sequential", "layers": [LINEAR]}})
    path.write_bytes(
        written({"__metadata__": {"fastnn": description}, **RIGHT}, np.float32([2, 3]).tobytes())
    )
    assert nn.load(path)([[1, 1]]).tolist() == [[5]]


def test_a_file_at_the_limit_of_nesting_can_be_used(tmp_path):
    model = nn.Linear(2, 1, bias=False)
    for _ in range(64):
        model = nn.Sequential(model)
    model.eval().save(tmp_path / "deep")
    loaded = nn.load(tmp_path / "deep")
    assert repr(loaded) == repr(model)
    np.testing.assert_array_equal(loaded([[1, 2]]), model([[1, 2]]))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    for use in (network().save, nn.load):
        with pytest.raises(ImportError, match=r"pip install 'fastnn-kernels\[safetensors\]'"):
            use(tmp_path / "model")


def test_nothing_of_the_networks_can_execute_a_file():
    """No module of theirs knows a way to."""
    for module in ("fastnn.io", "fastnn.nn.files", "fastnn.data"):
        source = importlib.util.find_spec(module).loader.get_source(module)
        assert not re.findall(r"pickle|import_module|__import__|np\.load|(?<![.\w])(?:eval|exec)\(", source)
