"""Patches that measure ``generate`` and ``pipeline`` calls of transformers, with the tokens that came out."""

from __future__ import annotations

from typing import Any

from impactsdk.integrations.patches import Call, Patches, region_of

__all__ = ["instrument_generate", "instrument_pipeline", "tokens_out"]


def instrument_generate(patches: Patches, mixin: Any) -> None:
    """Have ``generate`` of a generation mixin, of PyTorch or TensorFlow, measured: a span with the new tokens as its units."""
    patches.wrap(mixin, "generate", _generate)


def instrument_pipeline(patches: Patches, pipeline: Any) -> None:
    """Have calls of a ``Pipeline`` measured.

    Given a generator or a dataset, a call returns before any work is done; so the model's batches are regions, too, without a
    span, and have the energy in that case.
    """
    patches.wrap(pipeline, "__call__", _pipeline)
    patches.wrap(pipeline, "forward", lambda args, kwargs: region_of("transformers.pipeline.batch", args, kwargs, span=False))


def _generate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    return region_of(
        "transformers.generate", args, kwargs, unit="token", count=lambda result: tokens_out(args[0], args[1:], kwargs, result)
    )


def _pipeline(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    given = args[1] if len(args) > 1 else kwargs.get("inputs")

    def count(result: Any) -> int | None:
        if isinstance(given, list | tuple):
            return len(given)
        # Anything else that is answered by a list or a dictionary was one input; an iterator has not answered yet.
        return 1 if isinstance(result, list | dict) else None

    return region_of("transformers.pipeline", args, kwargs, unit="input", count=count)


def tokens_out(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int | None:
    """How many tokens ``model.generate(*args, **kwargs)`` made: without the prompt and without padding. ``None`` if unknown."""
    rows = _rows(getattr(result, "sequences", result))
    if rows is None:
        return None
    prompt = _prompt_length(model, args, kwargs)
    if prompt is None:
        return None
    ends = _as_set(_option("eos_token_id", model, kwargs))
    paddings = _as_set(_option("pad_token_id", model, kwargs)) or ends  # generate itself pads with the end, if it has no other
    return sum(_length(row[prompt:], paddings, ends) for row in rows)


def _rows(sequences: Any) -> list[list[int]] | None:
    if not hasattr(sequences, "tolist") and hasattr(sequences, "numpy"):
        sequences = sequences.numpy()
    rows = sequences.tolist() if hasattr(sequences, "tolist") else None
    return rows if rows and isinstance(rows[0], list) else None


def _prompt_length(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    """How many tokens at the front of each row were there before."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        given = kwargs.get("decoder_input_ids")
        return 1 if given is None else int(given.shape[-1])  # at least the token that starts the decoder
    given = args[0] if args else kwargs.get("inputs", kwargs.get("input_ids"))
    if given is None:
        # From embeddings alone only new tokens come back; from nothing, the token that starts the text.
        return 0 if kwargs.get("inputs_embeds") is not None else 1
    return int(given.shape[-1])


def _option(name: str, model: Any, kwargs: dict[str, Any]) -> Any:
    for found in (
        kwargs.get(name),
        getattr(kwargs.get("generation_config"), name, None),
        getattr(getattr(model, "generation_config", None), name, None),
    ):
        if found is not None:
            return found
    return None


def _as_set(tokens: Any) -> set[int]:
    if hasattr(tokens, "tolist"):
        tokens = tokens.tolist()
    return set() if tokens is None else set(tokens) if isinstance(tokens, list | tuple | set) else {int(tokens)}


def _length(row: list[int], paddings: set[int], ends: set[int]) -> int:
    kept = len(row)
    while kept and row[kept - 1] in paddings:
        kept -= 1
    # Where the end serves as padding, too, the first of them was generated.
    return kept + (1 if kept < len(row) and row[kept] in ends else 0)
