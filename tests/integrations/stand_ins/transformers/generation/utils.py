"""A stand-in for what models generate with."""

import types


class GenerationMixin:
    """Answers with ``answer``."""

    config = types.SimpleNamespace(is_encoder_decoder=False)
    generation_config = types.SimpleNamespace(eos_token_id=7, pad_token_id=None)
    answer = None

    def generate(self, inputs=None, generation_config=None, **kwargs):
        """Generate."""
        return self.answer
