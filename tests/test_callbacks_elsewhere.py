"""Names and objects of other trainers: a message says what they are here."""

import re
from pathlib import Path

import pytest

from detector import callbacks
from detector.callbacks.elsewhere import CLASSES, EVENTS_ELSEWHERE, WORDS
from detector.callbacks.events import ALIASES, EVENTS, resolve_event
from detector.callbacks.registry import CallbackRegistry
from detector.errors import CallbackError

PAGE = (Path(__file__).resolve().parents[1] / "docs/callbacks.md").read_text(encoding="utf-8")


def table_of_the_page():
    """Yield (name elsewhere, name here) of the table that compares the trainers."""
    rows = PAGE.split("| moment | here | ultralytics | Keras | Lightning |")[1].split("\n\n")[0].splitlines()
    for row in rows[2:]:
        here, *others = [re.findall(r"`(\w+)`", cell) for cell in row.strip("|").split("|")[1:]]
        for names in others:
            yield from zip(names, here, strict=bool(names))


@pytest.mark.parametrize(
    ("name", "here"),
    [pair for pair in dict.fromkeys(table_of_the_page()) if pair[0] not in {*EVENTS, *ALIASES}],
)
def test_every_name_in_the_docs_table_suggests_its_event_here(name, here):
    with pytest.raises(CallbackError, match=rf"^unknown event '{name}'; did you mean '{here}'\?$"):
        resolve_event(name)


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("on_train_begin", "on_train_start"),
        ("on_training_epoch_begin", "on_train_epoch_start"),
        ("on_validate_finish", "on_val_end"),
        ("on_step_end", "on_train_batch_end"),
        ("on_trian_begin", "on_train_start"),
        ("on_fit_epoch_ends", "on_fit_epoch_end"),
    ],
)
def test_a_hint_goes_by_meaning_before_letters(name, here):
    with pytest.raises(CallbackError, match=f"did you mean '{here}'"):
        resolve_event(name)


def test_the_tables_lead_to_what_is_there():
    assert set(EVENTS_ELSEWHERE.values()) <= set(EVENTS)
    assert not set(EVENTS_ELSEWHERE) & {*EVENTS, *ALIASES}
    words = {word for event in EVENTS for word in event.split("_")}
    assert set(WORDS.values()) <= words
    for text in CLASSES.values():
        for name in re.findall(r"detector\.callbacks\.(\w+)", text):
            assert hasattr(callbacks, name), name


def made_elsewhere(name, module, bases=()):
    def on_train_begin(self, logs=None):
        """As theirs."""

    return type(
        name, bases, {"__module__": module, "on_train_begin": on_train_begin, "on_train_end": on_train_begin}
    )


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("EarlyStopping", "keras.src.callbacks.early_stopping",
         "EarlyStopping is a callback of Keras, whose methods take other arguments; here it is "
         "detector.callbacks.EarlyStopping (docs"),
        ("TensorBoard", "tensorflow.python.keras.callbacks", "of Keras, whose methods take other arguments; here it is "
         "tensorboard=true"),
        ("Timer", "lightning.pytorch.callbacks.timer", "Timer is a callback of Lightning, whose methods take other "
         "arguments; here it is detector.callbacks.TimeLimit"),
        ("DeepSpeed", "pytorch_lightning.callbacks", "DeepSpeed is a callback of Lightning, whose methods take other "
         "arguments; derive it from detector.Callback: its methods take one argument, the engine"),
    ],
)  # fmt: skip
def test_an_object_of_keras_or_lightning_is_named_with_the_equivalent(name, module, message):
    with pytest.raises(CallbackError, match=re.escape(message)):
        CallbackRegistry().add_any(made_elsewhere(name, module)())


def test_a_class_derived_from_theirs_is_named_too():
    class Mine(made_elsewhere("Callback", "keras.src.callbacks.callback")):
        """The user's own."""

    with pytest.raises(CallbackError, match="Mine derives from Callback, a callback of Keras, whose methods"):
        CallbackRegistry().add(Mine())


@pytest.mark.parametrize(
    "fn", [lambda epoch, logs=None: None, lambda batch, logs=None: None, lambda logs=None: None]
)
def test_a_function_with_the_arguments_of_keras_is_refused(fn):
    registry = CallbackRegistry()
    with pytest.raises(CallbackError, match="as in Keras; here it is called with one argument, the engine"):
        registry.add("on_epoch_end", fn)
    registry.add("on_epoch_end", lambda trainer, logs=None: None)


def test_base_callback_is_callback():
    assert callbacks.BaseCallback is callbacks.Callback
