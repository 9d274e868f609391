"""A stand-in with the public interface of Keras that callbacks and patches see: ``Model``, and its list of callbacks."""

import functools
import time


class _Loss:
    name = "loss"
    count = 0.0


class CallbackList:
    """What ``fit`` makes of a list of callbacks, unless it is given one."""

    def __init__(self, callbacks, model):
        self.callbacks = list(callbacks or [])
        for callback in self.callbacks:
            callback.set_model(model)
            callback.set_params({"steps": None})

    def __getattr__(self, name):
        """Call a hook of all of them."""
        if not name.startswith("on_"):
            raise AttributeError(name)

        def call(*arguments):
            for callback in self.callbacks:
                getattr(callback, name)(*arguments)

        return call


def _listed(callbacks, model):
    return callbacks if isinstance(callbacks, CallbackList) else CallbackList(callbacks, model)


def _filtered(function):
    @functools.wraps(function)
    def called(*args, **kwargs):
        return function(*args, **kwargs)

    return called


class Model:
    """Its samples are the items of ``x``."""

    def __init__(self):
        self.metrics = [_Loss()]
        self.fails_at = None

    def train_step(self, data):
        self.metrics[0].count += len(data)
        time.sleep(0.002)

    def test_step(self, data):
        self.metrics[0].count += len(data)
        time.sleep(0.001)

    @_filtered
    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, validation_data=None):
        """Train."""
        size = batch_size or 32
        listed = _listed(callbacks, self)
        history = {}
        listed.on_train_begin(None)
        for epoch in range(epochs):
            self.metrics[0].count = 0.0
            listed.on_epoch_begin(epoch, None)
            for step, start in enumerate(range(0, len(x), size)):
                listed.on_train_batch_begin(step, None)
                if step == self.fails_at:
                    raise ArithmeticError("the training failed")
                self.train_step(x[start : start + size])
                listed.on_train_batch_end(step, None)
            logs = {"loss": 1.0}
            if validation_data is not None:
                self.evaluate(validation_data, batch_size=size, callbacks=listed)
            listed.on_epoch_end(epoch, logs)
            for name, value in logs.items():
                history.setdefault(name, []).append(value)
        listed.on_train_end(None)
        return history

    @_filtered
    def evaluate(self, x=None, y=None, batch_size=None, callbacks=None):
        """Test."""
        listed = _listed(callbacks, self)
        listed.on_test_begin(None)
        self.metrics[0].count = 0.0
        for start in range(0, len(x), batch_size or 32):
            self.test_step(x[start : start + (batch_size or 32)])
        listed.on_test_end(None)

    @_filtered
    def predict(self, x, batch_size=None, callbacks=None):
        """Answer."""
        listed = _listed(callbacks, self)
        listed.on_predict_begin(None)
        for step, start in enumerate(range(0, len(x), batch_size or 32)):
            listed.on_predict_batch_begin(step, None)
            listed.on_predict_batch_end(step, {"outputs": x[start : start + (batch_size or 32)]})
        listed.on_predict_end(None)
        return x
