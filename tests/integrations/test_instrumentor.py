"""The instrumentor: patches, their way back, and imports before and after, on stand-ins; the real ones in scripts."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from impactsdk.integrations.instrumentor import ImpactInstrumentor
from tests.integrations.frameworks import STAND_INS, needs
from tests.kit import script

# The base class makes one object of it, or, where it is not installed, refuses to make any: neither is asked here.
BEGIN = """
import gc, inspect, sys, types
import impactsdk
from impactsdk.integrations.instrumentor import ImpactInstrumentor
from impactsdk.testing import capture
instrumentor = object.__new__(ImpactInstrumentor)
class Rows(list):
    @property
    def shape(self): return (len(self),)
    def __getitem__(self, at): return Rows(list.__getitem__(self, at)) if isinstance(at, slice) else list.__getitem__(self, at)
def rows(count): return Rows(range(count))
def told(got): return [(each.name, each.units) for each in got if not each.name.endswith(("step", "batch"))]
"""


def run(code: str, folder: Path, *, quiet: bool = True, python_path: str = str(STAND_INS)) -> list[str]:
    output, errors = script(BEGIN + textwrap.dedent(code), folder, PYTHONPATH=python_path)
    assert not quiet or errors == "", errors
    return output.splitlines()


@pytest.mark.parametrize("when", ["before", "after"])
def test_keras_is_measured_whenever_it_is_imported(when: str, tmp_path: Path) -> None:
    first, second = "import tf_keras", "instrumentor._instrument()"
    if when == "after":
        first, second = second, first
    found = run(
        f"""
        {first}
        {second}
        with capture() as got:
            model = tf_keras.Model()
            model.fit(rows(50), epochs=2, batch_size=16, validation_data=rows(5))
            model.evaluate(rows(40))
            model.predict(rows(30), None, [])
            print(told(got), got.meter.totals().operations["keras.step"].units)
        """,
        tmp_path,
    )
    epoch = [("keras.evaluate", 5.0), ("keras.epoch", 50.0)]
    whole = [*epoch, *epoch, ("keras.fit", 100.0), ("keras.evaluate", 40.0), ("keras.predict", 30.0)]
    assert found == [f"{whole} 100.0"]


def test_taking_it_back_leaves_the_very_same_functions(tmp_path: Path) -> None:
    found = run(
        """
        import sklearn.linear_model, tf_keras, lightning.pytorch
        import transformers.trainer, transformers.generation.utils, transformers.pipelines.base
        places = [(tf_keras.Model, "fit evaluate predict"), (lightning.pytorch.Trainer, "fit validate test predict"),
            (transformers.trainer.Trainer, "train evaluate predict"),
            (transformers.pipelines.base.Pipeline, "__call__ forward"),
            (transformers.generation.utils.GenerationMixin, "generate"), (sklearn.linear_model.Regression, "fit"),
            (sklearn.base.ClassifierMixin, "predict")]
        places = [(owner, name) for owner, names in places for name in names.split()]
        before = [owner.__dict__[name] for owner, name in places]
        described = [(f.__name__, f.__qualname__, f.__doc__, f.__module__, inspect.signature(f)) for f in before]
        path = list(sys.meta_path)
        instrumentor._instrument()
        instrumentor._instrument()
        during = [owner.__dict__[name] for owner, name in places]
        print(all(ours is not theirs and ours.__wrapped__ is theirs for ours, theirs in zip(during, before)))
        print([(f.__name__, f.__qualname__, f.__doc__, f.__module__, inspect.signature(f)) for f in during] == described)
        instrumentor._uninstrument()
        instrumentor._uninstrument()
        print(all(owner.__dict__[name] is theirs for (owner, name), theirs in zip(places, before)), sys.meta_path == path)
        """,
        tmp_path,
    )
    assert found == ["True", "True", "True True"]


def test_patched_by_somebody_else_meanwhile_ours_does_nothing_more(tmp_path: Path) -> None:
    found = run(
        """
        import tf_keras
        instrumentor._instrument()
        ours = tf_keras.Model.fit
        def theirs(self, *args, **kwargs): return ours(self, *args, **kwargs)
        tf_keras.Model.fit = theirs
        instrumentor._uninstrument()
        with capture() as got:
            tf_keras.Model().fit(rows(10))
            print(tf_keras.Model.fit is theirs, len(got))
        """,
        tmp_path,
    )
    assert found == ["True 0"]


def test_a_callback_that_is_there_already_is_used(tmp_path: Path) -> None:
    found = run(
        """
        import tf_keras
        from impactsdk.integrations.keras import ImpactCallback
        instrumentor._instrument()
        with capture() as got:
            history = tf_keras.Model().fit(rows(10), callbacks=[ImpactCallback("mine")])
            print(told(got), "impact/energy_j" in history, set(tf_keras.Model().fit(rows(10))))
        """,
        tmp_path,
    )
    assert found == ["[('mine.epoch', 10.0), ('mine.fit', 10.0)] True {'loss'}"]


def test_a_list_of_callbacks_that_keras_made_is_measured_and_given_back_as_it_was(tmp_path: Path) -> None:
    found = run(
        """
        import tf_keras
        instrumentor._instrument()
        model = tf_keras.Model()
        listed = tf_keras.CallbackList([], model)
        with capture() as got:
            model.fit(rows(50), batch_size=16, callbacks=listed, validation_data=rows(5))
            model.predict(rows(7), callbacks=listed)
            print(told(got), listed.callbacks)
        """,
        tmp_path,
    )
    told = [("keras.evaluate", 5.0), ("keras.epoch", 50.0), ("keras.fit", 50.0), ("keras.predict", 7.0)]
    assert found == [f"{told} []"]


def test_a_callback_that_fit_and_an_evaluation_inside_of_it_share_is_used_by_both(tmp_path: Path) -> None:
    found = run(
        """
        import tf_keras
        from impactsdk.integrations.keras import ImpactCallback
        instrumentor._instrument()
        shared, model = ImpactCallback(), tf_keras.Model()
        class Other:
            def __getattr__(self, name): return lambda *_: None
            def on_epoch_end(self, epoch, logs): model.evaluate(rows(4), callbacks=[shared])
        with capture() as got:
            model.fit(rows(10), callbacks=[Other(), shared])
            print(told(got))
        """,
        tmp_path,
    )
    assert found == ["[('keras.epoch', 10.0), ('keras.evaluate', 4.0), ('keras.fit', 10.0)]"]


def test_a_call_with_a_wrong_argument_is_no_failure_of_ours(tmp_path: Path) -> None:
    found = run(
        """
        import tf_keras
        instrumentor._instrument()
        try:
            tf_keras.Model().fit(nonsense=1)
        except TypeError as error:
            print(error)
        """,
        tmp_path,
    )
    assert found == ["Model.fit() got an unexpected keyword argument 'nonsense'"]


def test_exceptions_pass_and_leave_nothing_open(tmp_path: Path) -> None:
    found = run(
        """
        instrumentor._instrument()
        import tf_keras, lightning.pytorch, transformers.trainer
        def keras():
            model = tf_keras.Model()
            model.fails_at = 1
            model.fit(rows(100))
        def trainer():
            run = transformers.trainer.Trainer(rows(50))
            run.fails_at = 1
            run.train()
        def light():
            lightning.pytorch.Trainer().fit(lightning.pytorch.Module(fails=True), [rows(3)])
        with capture() as got:
            for call in (keras, trainer, light):
                try:
                    call()
                except ArithmeticError as error:
                    kept = error
                    print(error, impactsdk.current())
            try:
                tf_keras.Model().fit(nonsense=1)
            except TypeError:
                print("as before")
            print(sorted(each.name for each in got if each.name.endswith(("fit", "train"))))
        """,
        tmp_path,
        quiet=False,
    )
    assert found == [*["the training failed None"] * 3, "as before", "['keras.fit', 'lightning.fit', 'trainer.train']"]


def test_what_fails_in_ours_does_not_reach_the_call(tmp_path: Path) -> None:
    output, errors = script(
        BEGIN
        + textwrap.dedent("""
        import impactsdk.integrations.patches, impactsdk.integrations.running
        def fail(*args, **kwargs): raise OSError("ours")
        impactsdk.integrations.running.measured = impactsdk.integrations.patches.measured = fail
        instrumentor._instrument()
        import tf_keras, transformers.trainer, transformers.pipelines.base, sklearn.linear_model
        with capture():
            print(tf_keras.Model().fit(rows(10)), transformers.trainer.Trainer(rows(9)).train())
            print(transformers.pipelines.base.Pipeline()(["a"]), sklearn.linear_model.Regression().fit([1]).predict([1]))
        """),
        tmp_path,
        PYTHONPATH=str(STAND_INS),
    )
    assert output.splitlines() == ["{'loss': [1.0]} trained", "[{'answer': 'a'}] [0]"]
    assert "failed and is left out" in errors


def test_the_trainer_of_transformers(tmp_path: Path) -> None:
    found = run(
        """
        instrumentor._instrument()
        import transformers.trainer
        with capture() as got:
            trainer = transformers.trainer.Trainer(rows(50), rows(9))
            print(trainer.train(), trainer.predict(rows(3)), trainer.callback_handler.callbacks)
            trainer.evaluate({"a": rows(3)})
            trainer.evaluate(rows(0))
            print(told(got))
        """,
        tmp_path,
    )
    epoch = [("trainer.epoch", 50.0), ("trainer.evaluate", 9.0)]
    told = [*epoch, *epoch, ("trainer.train", 100.0), ("trainer.predict", 3.0), ("trainer.evaluate", None)]
    told.append(("trainer.evaluate", 0.0))
    assert found == ["trained [0, 1, 2] []", str(told)]


def test_lightning(tmp_path: Path) -> None:
    found = run(
        """
        instrumentor._instrument()
        import lightning.pytorch as L
        with capture() as got:
            trainer = L.Trainer()
            trainer.fit(L.Module(), [rows(4)] * 3)
            trainer.test(L.Module(), [rows(4)])
            print(told(got)[1:], trainer.callbacks)
        """,
        tmp_path,
    )
    epochs = [("lightning.epoch", 12.0), ("lightning.validate", None)]
    assert found[0].endswith("('lightning.fit', 24.0), ('lightning.test', 4.0)] []")
    assert found[0].count(str(epochs[0])) == 2


def test_generated_tokens_are_counted_without_prompt_and_padding(tmp_path: Path) -> None:
    found = run(
        """
        instrumentor._instrument()
        from transformers.generation.utils import GenerationMixin
        class Tokens(list):
            def tolist(self): return [list(row) for row in self]
            @property
            def shape(self): return (len(self), len(self[0]))
        prompt = Tokens([[1, 2], [1, 2]])
        def units(answer, *args, **kwargs):
            model = GenerationMixin()
            for name in ("config", "generation_config"):
                if name in kwargs: setattr(model, name, kwargs.pop(name))
            model.answer = answer
            with capture() as got:
                assert model.generate(*args, **kwargs) is answer
                return got[0].units
        ended = Tokens([[1, 2, 5, 6, 7, 7, 7], [1, 2, 5, 6, 8, 9, 7]])
        print(units(ended, prompt))                                    # the end is the padding, too: 3 + 5
        print(units(types.SimpleNamespace(sequences=ended), input_ids=prompt, pad_token_id=0))   # 5 + 5
        print(units(Tokens([[1, 2, 5, 7, 0, 0]]), inputs=Tokens([[1, 2]]), pad_token_id=0))      # 2
        translation = types.SimpleNamespace(is_encoder_decoder=True)
        print(units(Tokens([[0, 5, 6, 7]]), prompt, config=translation))                         # 3
        print(units(Tokens([[5, 6]]), inputs_embeds=object()))                                   # 2
        print(units(object(), prompt))
        """,
        tmp_path,
    )
    assert found == ["8.0", "10.0", "2.0", "3.0", "2.0", "None"]


def test_pipelines_count_their_inputs(tmp_path: Path) -> None:
    found = run(
        """
        instrumentor._instrument()
        from transformers.pipelines.base import Pipeline
        with capture() as got:
            pipeline = Pipeline()
            pipeline(["a", "b"]), pipeline("a"), list(pipeline(iter("abc")))
            print(told(got), got.meter.totals().operations["transformers.pipeline.batch"].count)
        """,
        tmp_path,
    )
    assert found == ["[('transformers.pipeline', 2.0), ('transformers.pipeline', 1.0), ('transformers.pipeline', None)] 6"]


def test_of_estimators_only_the_outermost_call_has_a_span(tmp_path: Path) -> None:
    found = run(
        """
        instrumentor._instrument()
        from sklearn.linear_model import Regression, Search
        with capture() as got:
            Regression().fit(rows(5)).predict(rows(4))
            Search().fit(X=rows(3))
            print(told(got))
        """,
        tmp_path,
    )
    assert found == ["[('sklearn.Regression.fit', 5.0), ('sklearn.Regression.predict', 4.0), ('sklearn.Search.fit', 3.0)]"]


@pytest.mark.parametrize("meanwhile", [True, False])
def test_fits_in_a_pool_of_the_users_own_have_spans_each(meanwhile: bool, tmp_path: Path) -> None:
    found = run(
        f"""
        instrumentor._instrument()
        from multiprocessing.pool import ThreadPool
        from threading import Barrier
        from sklearn.linear_model import Search
        both, meanwhile = Barrier(2 + {meanwhile}), {meanwhile}
        class Both:
            def wait(self, seconds): both.wait(seconds)
        with capture() as got, ThreadPool(2) as pool:
            with impactsdk.measured("step", span=False):  # what is begun is begun by now
                pass
            asked = pool.map_async(lambda count: Search(Both()).fit(rows(count)), (3, 5), chunksize=1)
            if meanwhile:
                Search(Both()).fit(rows(7))
            asked.get(20)
            print(sorted(told(got)))
        """,
        tmp_path,
    )
    told = [("sklearn.Search.fit", float(count)) for count in ((3, 5, 7) if meanwhile else (3, 5))]
    assert found == [str(told)]


def test_a_method_that_only_some_estimators_have_is_measured_and_stays_theirs_alone(tmp_path: Path) -> None:
    found = run(
        """
        from sklearn.linear_model import Pipeline, Regression, Search
        original = Pipeline.__dict__["predict"]
        instrumentor._instrument()
        with capture() as got:
            print(Pipeline(Regression()).predict(rows(4)), told(got))
        print(hasattr(Pipeline(Regression()), "predict"), hasattr(Pipeline(Search()), "predict"))
        instrumentor._uninstrument()
        print(Pipeline.__dict__["predict"] is original)
        """,
        tmp_path,
    )
    assert found == ["[0, 0, 0, 0] [('sklearn.Pipeline.predict', 4.0)]", "True False", "True"]


@needs("sklearn", "numpy")
def test_the_outermost_call_of_the_real_scikit_learn_has_the_span(tmp_path: Path) -> None:
    found = run(
        """
        instrumentor._instrument()
        import numpy as np
        from sklearn.linear_model import LogisticRegression, SGDClassifier
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline
        x = np.random.default_rng(0).normal(size=(40, 3))
        y = (x[:, 0] > 0).astype(int)
        with capture() as got:
            make_pipeline(LogisticRegression()).fit(x, y).predict(x)
            GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2).fit(x, y).predict(x[:9])
            SGDClassifier(loss="log_loss").fit(x, y).predict_proba(x[:5])
            print([(each.name.removeprefix("sklearn."), each.units) for each in got])
        print(hasattr(SGDClassifier(), "predict_proba"), hasattr(SGDClassifier(loss="log_loss"), "predict_proba"))
        """,
        tmp_path,
        python_path="",
    )
    told = [("Pipeline.fit", 40.0), ("Pipeline.predict", 40.0), ("GridSearchCV.fit", 40.0), ("GridSearchCV.predict", 9.0)]
    assert found == [str([*told, ("SGDClassifier.fit", 40.0), ("SGDClassifier.predict_proba", 5.0)]), "False True"]


def test_nothing_is_imported_for_it(tmp_path: Path) -> None:
    found = run(
        """
        instrumentor._instrument()
        print(sorted({"keras", "tf_keras", "transformers", "lightning", "sklearn", "torch"} & set(sys.modules)))
        print(instrumentor.instrumentation_dependencies())
        """,
        tmp_path,
    )
    assert found == ["[]", "[]"]


def test_without_its_base_class_it_says_what_to_install(tmp_path: Path) -> None:
    output, _ = script(
        """
        import sys
        sys.modules["opentelemetry.instrumentation"] = sys.modules["opentelemetry.instrumentation.instrumentor"] = None
        from impactsdk.integrations.instrumentor import ImpactInstrumentor
        try:
            ImpactInstrumentor()
        except ImportError as error:
            print(error)
        """,
        tmp_path,
    )
    assert "pip install 'impactsdk[instrument]'" in output


@needs("opentelemetry.instrumentation")
def test_it_is_an_instrumentor_like_others(tmp_path: Path) -> None:
    found = run(
        """
        import tf_keras
        original = tf_keras.Model.fit
        one, two = ImpactInstrumentor(), ImpactInstrumentor()
        one.instrument()
        two.instrument()
        with capture() as got:
            tf_keras.Model().fit(rows(10))
            print(one is two, told(got))
        one.uninstrument()
        print(tf_keras.Model.fit is original)
        """,
        tmp_path,
        quiet=False,
    )
    assert found == ["True [('keras.epoch', 10.0), ('keras.fit', 10.0)]", "True"]
    assert isinstance(ImpactInstrumentor, type)


OPENTELEMETRY_INSTRUMENT = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
"""What the command is, wherever it was installed to."""

BERT = """
import os
os.environ.update(TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3")
import numpy as np, tf_keras
from transformers import BertConfig, TFBertForSequenceClassification
config = BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
model = TFBertForSequenceClassification(config)
model.compile(tf_keras.optimizers.Adam(1e-3))
ids = np.random.default_rng(0).integers(0, 100, (60, 12))
batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids[:, 0] % 2}
model.fit(batch, epochs=2, batch_size=16, verbose=0)
"""


@pytest.mark.bert
@needs("tensorflow", "tf_keras", "transformers", "opentelemetry.instrumentation", "opentelemetry.distro")
def test_an_unmodified_bert_training_has_fit_and_epoch_spans(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(BERT, encoding="utf-8")
    # The entry point as an installed wheel has it; an editable install made before it was added does not.
    entry = tmp_path / "entry" / "impactsdk_entry-0.dist-info"
    entry.mkdir(parents=True)
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: impactsdk-entry\nVersion: 0\n", encoding="utf-8")
    (entry / "entry_points.txt").write_text(
        "[opentelemetry_instrumentor]\nimpactsdk = impactsdk.integrations.instrumentor:ImpactInstrumentor\n", encoding="utf-8"
    )
    ran = subprocess.run(
        [sys.executable, "-c", OPENTELEMETRY_INSTRUMENT, sys.executable, "train.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(tmp_path / "entry"),
            "OTEL_TRACES_EXPORTER": "console",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        },
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    names = [line.split('"')[3] for line in ran.stdout.splitlines() if line.startswith('    "name":')]
    assert names == ["keras.epoch", "keras.epoch", "keras.fit"], ran.stderr
    assert ran.stdout.count('"impact.energy.self"') == 3
