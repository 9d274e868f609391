"""Measures training and inference without a change of the code: ``opentelemetry-instrument python train.py``."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable, Collection
from typing import Any

from impactsdk.integrations import generation, keras, lightning, sklearn, transformers
from impactsdk.integrations.patches import AfterImport, Patches

__all__ = ["ImpactInstrumentor"]

_NEEDED = "ImpactInstrumentor needs opentelemetry-instrumentation: pip install 'impactsdk[instrument]'"


def _base() -> Any:
    try:
        return importlib.import_module("opentelemetry.instrumentation.instrumentor").BaseInstrumentor
    except ImportError:
        return _Missing


class _Missing:
    """Stands where the base class would, and says what is missing."""

    def __init__(self) -> None:
        raise ImportError(_NEEDED)


class ImpactInstrumentor(_base()):  # type: ignore[misc]  # which base it is depends on what is installed
    """Puts joules on spans of ``fit``, ``train``, ``generate`` and their like, in frameworks loaded before or after.

    Keras 3 and tf_keras: ``Model.fit``, ``evaluate``, ``predict``, and each epoch. transformers: ``Trainer.train``,
    ``evaluate``, ``predict`` and each epoch, ``generate``, pipelines. Lightning: ``Trainer.fit``, ``validate``, ``test``,
    ``predict`` and each epoch. scikit-learn: ``fit``, ``predict``, ``fit_predict``, ``predict_proba``. Nothing is waited
    for, and nothing that is passed to them is recorded. :meth:`uninstrument` puts the very same functions back.
    """

    _patches: Patches | None = None
    _imports: AfterImport | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: whatever of the frameworks is there is measured."""
        return []

    def _instrument(self, **_kwargs: Any) -> None:
        if self._imports is not None:
            return
        self._patches, self._imports = patches, imports = Patches(), AfterImport()
        for module, name, instrument in _PLACES:
            imports.watch(module, _when_there(patches, name, instrument))
        imports.watch_all("sklearn.", lambda module: sklearn.instrument(patches, module))

    def _uninstrument(self, **_kwargs: Any) -> None:
        if self._imports is not None:
            self._imports.stop()
        if self._patches is not None:
            self._patches.undo()
        self._imports = self._patches = None


def _when_there(patches: Patches, name: str, instrument: Callable[[Patches, Any], None]) -> Callable[[types.ModuleType], None]:
    def then(module: types.ModuleType) -> None:
        found = getattr(module, name, None)
        if isinstance(found, type):
            instrument(patches, found)

    return then


_PLACES: tuple[tuple[str, str, Callable[[Patches, Any], None]], ...] = (
    ("keras", "Model", keras.instrument),
    ("tf_keras", "Model", keras.instrument),
    ("transformers.trainer", "Trainer", transformers.instrument),
    ("transformers.generation.utils", "GenerationMixin", generation.instrument_generate),
    ("transformers.generation.tf_utils", "TFGenerationMixin", generation.instrument_generate),
    ("transformers.pipelines.base", "Pipeline", generation.instrument_pipeline),
    ("lightning.pytorch", "Trainer", lightning.instrument),
    ("pytorch_lightning", "Trainer", lightning.instrument),
)
