"""A stand-in for the Trainer: its order of hooks, and of callbacks."""

import time
import types


class _Handler:
    def __init__(self, callbacks):
        self.callbacks = callbacks

    def call_event(self, event, args, state, **kwargs):
        for callback in self.callbacks:
            getattr(callback, event)(args, state, None, **kwargs)


class _Loader:
    def __init__(self, dataset, size):
        self.dataset, self.size = dataset, size

    def __len__(self):
        return -(-len(self.dataset) // self.size)


class Trainer:
    """Every sixth log is a training loss."""

    def __init__(self, train_dataset, eval_dataset=None, callbacks=(), *, batch_size=8, epochs=2, accumulate=1, tokens=0):
        self.args = types.SimpleNamespace(train_batch_size=batch_size, world_size=1, epochs=epochs, accumulate=accumulate)
        self.train_dataset, self.eval_dataset, self.tokens = train_dataset, eval_dataset, tokens
        self.callback_handler = _Handler(list(callbacks))
        self.fails_at = None

    def _call(self, event, **kwargs):
        loader = _Loader(self.train_dataset, self.args.train_batch_size)
        self.callback_handler.call_event(event, self.args, self.state, train_dataloader=loader, **kwargs)

    def log(self, logs):
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self._call("on_log", logs=logs)

    def train(self, resume_from_checkpoint=None, **kwargs):
        """Train, or go on after so many batches."""
        self.state = types.SimpleNamespace(epoch=0.0, global_step=0, num_input_tokens_seen=0, log_history=[])
        rows, size = len(self.train_dataset), self.args.train_batch_size
        batches = -(-rows // size)
        begun, skipped = divmod(resume_from_checkpoint or 0, batches)
        self.state.epoch, self.state.global_step = begun + skipped / batches, resume_from_checkpoint or 0
        if getattr(self.args, "ignore_data_skip", False):
            skipped = 0
        self._call("on_train_begin")
        for epoch in range(begun, self.args.epochs):
            self._call("on_epoch_begin")
            first, skipped = skipped, 0
            for batch in range(first, batches):
                if batch % self.args.accumulate == 0:
                    self._call("on_step_begin")
                if self.state.global_step == self.fails_at:
                    raise ArithmeticError("the training failed")
                self.state.num_input_tokens_seen += self.tokens
                time.sleep(0.002)
                if (batch + 1) % self.args.accumulate == 0 or batch + 1 == batches:
                    self.state.global_step += 1
                    self.state.epoch = epoch + (batch + 1) / batches
                    self._call("on_step_end")
                    if self.state.global_step % 6 == 0:
                        self.log({"loss": 1.0})
                else:
                    self._call("on_substep_end")
            self._call("on_epoch_end")
            if self.eval_dataset is not None:
                self.evaluate()
        self.log({"train_loss": 1.0, "train_runtime": 0.1})
        self._call("on_train_end")
        return "trained"

    def evaluate(self, eval_dataset=None, ignore_keys=None):
        """Test."""
        time.sleep(0.002)
        metrics = {"eval_loss": 1.0}
        self.log(metrics)
        return metrics

    def predict(self, test_dataset):
        """Answer."""
        return list(test_dataset)
