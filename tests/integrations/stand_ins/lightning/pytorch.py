"""A stand-in with the public interface of Lightning that callbacks and patches see."""

import time


class Callback:
    """Hooks that do nothing."""

    def _nothing(self, *arguments):
        pass

    on_fit_start = on_fit_end = on_train_epoch_start = on_train_epoch_end = _nothing
    on_train_batch_start = on_train_batch_end = on_exception = _nothing


class Module:
    """Fails if told to."""

    def __init__(self, fails=False):
        self.fails, self.logged = fails, []

    def log_dict(self, values, **kwargs):
        self.logged.append(dict(values))


class Trainer:
    """Two epochs with a validation each, after one that checks whether it works."""

    def __init__(self, callbacks=()):
        self.callbacks, self.current_epoch = list(callbacks), 0

    def _call(self, event, *arguments):
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    def _validate(self, model, batches):
        self._call("on_validation_start", model)
        for number, batch in enumerate(batches):
            self._call("on_validation_batch_start", model, batch, number)
        self._call("on_validation_end", model)

    def fit(self, model, train_dataloaders=None, val_dataloaders=None):
        """Train."""
        try:
            self._fit(model, train_dataloaders, val_dataloaders or [])
        except BaseException as error:
            self._call("on_exception", model, error)
            raise

    def _fit(self, model, batches, validation):
        self._call("on_fit_start", model)
        self._validate(model, validation[:1])
        for self.current_epoch in range(2):
            self._call("on_train_epoch_start", model)
            for number, batch in enumerate(batches):
                self._call("on_train_batch_start", model, batch, number)
                time.sleep(0.002)
                if model.fails:
                    raise ArithmeticError("the training failed")
                self._call("on_train_batch_end", model, None, batch, number)
            self._validate(model, validation)
            self._call("on_train_epoch_end", model)
        self._call("on_fit_end", model)

    def validate(self, model, dataloaders=None):
        """Test."""
        self._validate(model, dataloaders)

    def test(self, model, dataloaders=None):
        """Test."""
        self._call("on_test_start", model)
        for number, batch in enumerate(dataloaders):
            self._call("on_test_batch_start", model, batch, number)
        self._call("on_test_end", model)

    def predict(self, model, dataloaders=None):
        """Answer."""
        self._call("on_predict_start", model)
        for number, batch in enumerate(dataloaders):
            self._call("on_predict_batch_start", model, batch, number)
        self._call("on_predict_end", model)
