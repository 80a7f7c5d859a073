"""fit: what it does to a model, what it tells, when it ends; and evaluation and callbacks."""

import builtins
import math
import signal
import threading

import numpy as np
import pytest

import fastnn
from fastnn import data, nn, optim, train

X = np.random.default_rng(0).normal(size=(70, 2)).astype(np.float32)
LABELS = (X[:, 0] * X[:, 1] > 0).astype(int)


def normalised():
    layers = nn.Linear(2, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 2)
    return nn.Sequential(*layers).initialize(random_state=0)


def recurrent():
    layers = nn.RNN(1, 8, num_layers=2), nn.Dropout(0.1), nn.Last(), nn.Linear(8, 2)
    return nn.Sequential(*layers).initialize(random_state=0)


def network(dropout=0.0):
    layers = nn.Linear(2, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 2)
    return nn.Sequential(*layers).initialize(random_state=0)


def fit(model=None, x=X, y=LABELS, **options):
    model = model or network()
    options.setdefault("optimizer", optim.Adam(model.parameters(), 0.05))
    given = {"loss": nn.CrossEntropyLoss(), "epochs": 3, "random_state": 1, "progress": False}
    return train.fit(model, x, y, **given | options)


def weights(model):
    return model.parameters().flats[0].data.copy()


def test_a_network_learns_and_the_history_tells():
    model = network()
    history = fit(model, epochs=30, validation_data=(X, LABELS))
    assert history["accuracy"][-1] > 0.95
    assert history["loss"][-1] < history["loss"][0] / 2
    assert len(history) == 30
    assert not history.stopped
    assert set(history.epochs[0]) == {"loss", "accuracy", "lr", "seconds", "val_loss", "val_accuracy"}
    result = train.evaluate(model, X, LABELS, loss=nn.CrossEntropyLoss(), batch_size=11)
    assert result["accuracy"] == pytest.approx(history["val_accuracy"][-1])
    assert result["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-6)


@pytest.fixture(params=["numpy", "numba", "cython"])
def chosen(request):
    """All kernels are those of this backend, where it is there."""
    usual = fastnn.report()[0].backend
    try:
        fastnn.set_backend(request.param)
    except (ImportError, ValueError) as error:
        pytest.skip(str(error))
    yield request.param
    fastnn.set_backend(usual)


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize(
    ("make", "x"), [(lambda: network(dropout=0.3), X), (normalised, X), (recurrent, X[:, :, np.newaxis])]
)
def test_training_is_the_same_for_any_number_of_threads(make, x):
    results = []
    for threads in (1, 2):
        with fastnn.num_threads(threads):
            model = make()
            fit(model, x)
            results.append(model.state_dict())
    for name, array in results[0].items():
        np.testing.assert_array_equal(array, results[1][name])


def test_training_is_reproducible():
    results = []
    for _ in range(2):
        model = network(dropout=0.3)
        fit(model)
        results.append(weights(model))
    np.testing.assert_array_equal(*results)
    other = network(dropout=0.3)
    fit(other, random_state=2)
    assert not np.array_equal(weights(other), results[0])


def test_the_loss_of_an_epoch_is_the_mean_over_samples():
    model = network()
    history = fit(model, epochs=1, optimizer=optim.SGD(model.parameters(), 0), batch_size=32)
    expected = train.evaluate(model, X, LABELS, loss=nn.CrossEntropyLoss())
    assert history["loss"] == pytest.approx([expected["loss"]], rel=1e-5)
    assert history["accuracy"] == pytest.approx([expected["accuracy"]])


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_outputs_are_looked_at_before_backward_takes_their_place(activation):
    model = nn.Sequential(nn.Linear(2, 8, activation="tanh"), nn.Linear(8, 1, activation=activation))
    model.initialize(random_state=0)
    loss = nn.BCELoss() if activation == "sigmoid" else nn.BCEWithLogitsLoss()
    optimizer, target = optim.SGD(model.parameters(), 0), LABELS.reshape(-1, 1)
    history = fit(model, y=target, loss=loss, optimizer=optimizer, epochs=1)
    expected = train.evaluate(model, X, target, loss=loss)
    assert history["accuracy"] == pytest.approx([expected["accuracy"]])
    assert history["loss"] == pytest.approx([expected["loss"]], rel=1e-5)


def test_sequences_are_learnt_step_by_step():
    """Whether the sum so far is positive, for each step of each sequence."""
    x = np.random.default_rng(0).normal(size=(300, 6, 1)).astype(np.float32)
    model = nn.Sequential(nn.RNN(1, 12), nn.Linear(12, 2)).initialize(random_state=0)
    labels = (x.cumsum(axis=1)[..., 0] > 0).astype(int)
    history = fit(model, x, labels, epochs=15, optimizer=optim.Adam(model.parameters(), 0.01))
    assert history["accuracy"][-1] > 0.95
    assert model.predict(x).shape == (300, 6, 2)


def test_newton_gets_its_closure():
    model = nn.Sequential(nn.Linear(2, 1, dtype=np.float64))
    target = X @ np.array([[1.0], [2.0]]) + 3
    history = fit(
        model,
        y=target,
        loss=nn.MSELoss(),
        epochs=2,
        batch_size=len(X),
        optimizer=optim.Newton(model.parameters()),
    )
    assert history["loss"][-1] < 1e-12
    assert "accuracy" not in history.epochs[0]


class Poison(train.Callback):
    """Spoils the weights before the second batch of the second epoch."""

    def batch_begin(self, run):
        if (run.epoch, run.batch) == (1, 1):
            run.model[0].weight.data.fill(np.nan)


def test_a_loss_that_is_no_number_stops_with_the_last_good_weights():
    model, good = network(), []
    message = r"nan in epoch 2, batch 2, at learning rate 0\.05; the model has the last weights"
    with pytest.raises(train.DivergedError, match=message):
        fit(model, callbacks=[lambda run: good.append(weights(run.model)), Poison()])
    np.testing.assert_array_equal(weights(model), good[-1])
    x = X.copy()
    x[40] = np.nan
    with pytest.raises(train.DivergedError, match="epoch 1, batch 2"):
        fit(x=x, shuffle=False)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of the definitions
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_weights_that_are_no_numbers_after_the_last_batch_are_not_kept():
    """No loss is computed with them any more, but that of validation."""
    model = network()
    good = weights(model)
    message = (
        r"the parameter \d\.weight is not finite in epoch 1, batch 1, at learning rate 3e\+38; the model"
    )
    with pytest.raises(train.DivergedError, match=message):
        fit(
            model,
            loss=nn.CrossEntropyLoss(reduction="sum"),
            optimizer=optim.SGD(model.parameters(), 3e38),
            batch_size=70,
            epochs=1,
        )
    np.testing.assert_array_equal(weights(model), good)
    x = X.copy()
    x[3] = np.nan
    with pytest.raises(train.DivergedError, match="the validation loss is nan in epoch 1, batch 3, at"):
        fit(model, validation_data=(x, LABELS))
    np.testing.assert_array_equal(weights(model), good)


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_running_statistics_go_back_with_the_weights(tmp_path):
    class Spoil(Poison):
        def batch_begin(self, run):
            if (run.epoch, run.batch) == (1, 1):
                run.model[1].running_var.data.fill(np.inf)
            if (run.epoch, run.batch) == (3, 1):
                run.model[0].weight.data.fill(np.nan)

    model, seen, path = normalised(), [], tmp_path / "best.safetensors"
    callbacks = [lambda run: seen.append(run.model.state_dict()), Spoil()]
    with pytest.raises(train.DivergedError):
        fit(model, epochs=5, callbacks=callbacks)
    assert same(model.state_dict(), seen[0])  # the later ones have an infinite variance
    model, seen[:] = normalised(), []

    def worsen(run):
        seen.append(run.model.state_dict())
        run.history.epochs[-1]["val_loss"] = [3, 1, 2, 4][run.epoch]

    fit(
        model,
        epochs=4,
        callbacks=[worsen, train.EarlyStopping(patience=2), train.ModelCheckpoint(path)],
    )
    assert same(model.state_dict(), seen[1])
    assert same(nn.load(path).state_dict(), seen[1])
    assert seen[1]["1.num_batches_tracked"] == 6


def test_ctrl_c_ends_at_a_border_of_batches(caplog):
    batches = []

    class Press(train.Callback):
        def batch_begin(self, run):
            batches.append(weights(run.model))
            if run.steps == 4:
                signal.raise_signal(signal.SIGINT)

    model, usual = network(), signal.getsignal(signal.SIGINT)
    history = fit(model, callbacks=[Press()], batch_size=32)
    assert history.stopped == "Ctrl-C in epoch 2, batch 2"
    assert "Ctrl-C" in caplog.text
    assert len(history) == 1
    assert len(batches) == 5
    assert not np.array_equal(weights(model), batches[-1])  # the batch was finished
    assert signal.getsignal(signal.SIGINT) is usual


def test_ctrl_c_twice_is_a_keyboard_interrupt():
    class Press(train.Callback):
        def batch_begin(self, run):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(callbacks=[Press()])


def test_fit_works_in_another_thread():
    histories = []
    thread = threading.Thread(target=lambda: histories.append(fit()))
    thread.start()
    thread.join()
    assert len(histories[0]) == 3


@pytest.mark.parametrize(
    ("model", "x", "y", "message"),
    [
        (
            nn.Sequential(nn.Linear(3, 2)),
            X,
            LABELS,
            r"layer 0, Linear\(3, 2\): input has shape \(1, 2\); expected",
        ),
        (
            nn.Sequential(nn.Linear(2, 4), nn.Linear(3, 2)),
            X,
            LABELS,
            r"layer 1, Linear\(3, 2\): input has shape",
        ),
        (
            normalised(),
            X[:65],
            LABELS[:65],
            r"batch of an epoch is too small: layer 1, BatchNorm1d\(16\): input",
        ),
        (network(), X, LABELS[:-1], r"fit: y has shape \(69,\), x \(70, 2\); expected as many"),
        (network(), X[:0], LABELS[:0], "not 0"),
        (network(), X, np.ones((70, 3)), "cross_entropy: target has shape"),
    ],
)
def test_sizes_are_checked_before_anything_is_changed(model, x, y, message):
    before = weights(model)
    with pytest.raises(ValueError, match=message):
        fit(model, x, y)
    np.testing.assert_array_equal(weights(model), before)


def test_validation_data_are_checked_too():
    with pytest.raises(ValueError, match="layer 0"):
        fit(validation_data=(X[:, :1], LABELS))
    with pytest.raises(IndexError, match="labels from 0 to 3, but the network has 2 outputs"):
        fit(validation_data=(X, 3 * LABELS))
    with pytest.raises(IndexError, match="labels from 4 to 5, but the network has 2 outputs"):
        fit(y=LABELS + 4)


@pytest.mark.parametrize("label", [2, -1])
def test_labels_of_all_samples_are_checked_before_anything_is_changed(label):
    model, labels = network(), LABELS.copy()
    before = weights(model)
    labels[-1] = label
    low, high = min(label, 0), max(label, 1)
    message = (
        f"target has labels from {low} to {high}, but the network has 2 outputs; expected labels from 0 to 1"
    )
    with pytest.raises(IndexError, match=message):
        fit(model, y=labels)
    np.testing.assert_array_equal(weights(model), before)
    assert len(fit(model, y=labels, loss=nn.CrossEntropyLoss(ignore_index=label))) == 3


def test_an_optimizer_of_another_network_is_refused():
    with pytest.raises(ValueError, match="optimizer has parameters of another network; expected"):
        fit(optimizer=optim.SGD(network().parameters(), 0.1))
    model = network()
    assert len(fit(model, optimizer=optim.SGD(model[0].parameters(), 0.1))) == 3


def test_a_loss_must_be_one_number():
    with pytest.raises(ValueError, match="reduction='none'"):
        fit(loss=nn.CrossEntropyLoss(reduction="none"))


def test_the_mode_of_the_model_is_left_alone():
    for mode in (True, False):
        model = network().train(mode)
        fit(model)
        assert model.training is mode
        assert model[2].training is mode


def test_early_stopping_restores_the_best_weights():
    seen = []

    def worsen(run):
        seen.append(weights(run.model))
        run.history.epochs[-1]["val_loss"] = [3, 1, 2, 1, 5, 0][run.epoch]

    model = network()
    history = fit(model, epochs=6, callbacks=[worsen, train.EarlyStopping(patience=3)])
    assert history.stopped == "no improvement in 3 epochs"
    assert len(history) == 5
    np.testing.assert_array_equal(weights(model), seen[1])
    stopping = train.EarlyStopping("accuracy", patience=1, min_delta=1)
    assert len(fit(epochs=9, callbacks=[stopping])) == 2
    with pytest.raises(ValueError, match="monitor is 'val_accuracy'; expected one of loss"):
        fit(callbacks=[train.EarlyStopping("val_accuracy")])


def test_checkpoints_are_those_of_the_best_epoch(tmp_path):
    path, seen = tmp_path / "best.safetensors", []

    def worsen(run):
        seen.append(weights(run.model))
        run.history.epochs[-1]["val_loss"] = [3, 1, 2][run.epoch]

    fit(callbacks=[worsen, train.ModelCheckpoint(path)])
    np.testing.assert_array_equal(weights(nn.load(path)), seen[1])
    fit(callbacks=[worsen, train.ModelCheckpoint(path, best_only=False)])
    np.testing.assert_array_equal(weights(nn.load(path)), seen[-1])
    assert [one.name for one in tmp_path.iterdir()] == ["best.safetensors"]


def test_schedules_set_the_learning_rate():
    rates = []

    class Note(train.Callback):
        def batch_begin(self, run):
            rates.append(run.optimizer.lr)

    schedule = train.LearningRateSchedule(optim.exponential_decay(1, factor=0.5))
    assert fit(epochs=3, callbacks=[schedule])["lr"] == [1, 0.5, 0.25]
    decay = train.LearningRateSchedule(optim.inverse_time_decay(0.1, decay=1), per="batch")
    fit(epochs=2, batch_size=35, callbacks=[decay, Note()])
    assert rates == pytest.approx([0.1, 0.1 / 2, 0.1 / 3, 0.1 / 4])


def test_a_function_is_called_after_each_epoch_and_may_stop():
    epochs = []

    def callback(run):
        epochs.append(run.epoch)
        if run.epoch == 1:
            run.stop("enough")

    history = fit(epochs=5, callbacks=[callback])
    assert epochs == [0, 1]
    assert history.stopped == "enough"


def test_progress_is_shown_where_tqdm_is_and_nothing_where_it_is_not(capsys, monkeypatch):
    fit(progress=True)  # no terminal: no bar
    assert capsys.readouterr() == ("", "")

    def refuse(name, *arguments, imported=builtins.__import__, **options):
        if name == "tqdm":
            raise ImportError
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert len(fit(progress=True)) == 3


def test_no_epochs_and_large_batches():
    assert len(fit(epochs=0)) == 0
    assert len(fit(batch_size=1000)) == 3
    assert math.isnan(train.evaluate(network(), X[:0], LABELS[:0], loss=nn.MSELoss())["loss"])
    assert data.one_hot(LABELS).shape == (70, 2)


def test_metrics_are_computed_where_somebody_looks_at_them(monkeypatch):
    metrics, calls = train._Mean.metrics, []

    def noting(mean):
        calls.append(mean)
        return metrics(mean)

    monkeypatch.setattr(train._Mean, "metrics", noting)
    fit(epochs=4, batch_size=7)
    assert len(calls) == 4
