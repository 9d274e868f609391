"""A stand-in with the public interface of transformers that callbacks and patches see."""


class TrainerCallback:
    """Hooks that do nothing."""

    def _nothing(self, args, state, control, **kwargs):
        pass

    on_init_end = on_train_begin = on_train_end = on_epoch_begin = on_epoch_end = _nothing
    on_step_begin = on_substep_end = on_step_end = on_log = on_evaluate = _nothing
