"""Who waits for what."""

from __future__ import annotations

import json
import time
from typing import Any

from detector.scale.watch import Watch


class Store(dict[str, Any]):
    """A store of one process."""

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)

    def set(self, key: str, value: str) -> None:
        self[key] = value

    def get(self, key: str) -> Any:  # type: ignore[override]
        return self[key]


def test_a_long_wait_names_what_is_waited_for_and_what_the_others_do() -> None:
    store = Store()
    store.set(
        "doing/1", json.dumps({"waits": None, "does": "the callback sleep on on_train_start", "since": 0})
    )
    store.set("doing/2", json.dumps({"waits": "the gradients of a batch", "does": "", "since": 0}))
    watch = Watch(0, 4, 0.05, store)
    watch.begin("the gradients of a batch")
    time.sleep(0.06)
    text = watch.late()
    watch.close()
    assert text is not None and text.startswith("rank 0 has waited 0 s for the gradients of a batch, since ")
    assert "rank 1 is in the callback sleep on on_train_start since " in text
    assert "nothing was heard of rank 3" in text
    assert text.index("rank 1 is in") < text.index("rank 2 waits for the gradients of a batch")


def test_a_wait_that_is_over_is_not_late() -> None:
    watch = Watch(0, 2, 0.01, Store())
    watch.end(watch.begin("something"))
    time.sleep(0.02)
    assert watch.late() is None
    watch.close()
