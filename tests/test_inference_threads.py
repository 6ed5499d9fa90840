"""One model, many threads: each gets the boxes of its own image, as one thread would, and torch keeps its threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from detector import YOLO
from detector.exporters import FORMATS
from detector.exporters.parity import synthetic_images
from detector.inference.exported_backend import one_thread

THREADS, ROUNDS = 4, 6
NAMES = [
    "pt",
    *(pytest.param(name, marks=[pytest.mark.slow] * (name in ("executorch", "pt2"))) for name in FORMATS),
]


@pytest.mark.parametrize("name", NAMES)
def test_threads_that_share_a_model_get_what_one_thread_gets(name, finder_weights, exported):
    if name != "pt" and (missing := FORMATS[name].missing()):
        pytest.skip(f"{', '.join(missing)} not installed")
    images = [*synthetic_images((192, 192)), *synthetic_images((96, 96))]

    def boxes(model, image):
        return model.predict(image, amp=False, conf=0.1, imgsz=96, verbose=False)[0].boxes.data

    model = YOLO(finder_weights if name == "pt" else exported(format=name))
    serial = [boxes(model, image) for image in images]
    assert len({len(rows) for rows in serial}) > 2, "images that differ"
    model = YOLO(model.source)  # what is made at the first call is made in the threads as well
    jobs = list(range(len(images))) * ROUNDS
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda job: boxes(model, images[job]), jobs))
    wrong = [
        job
        for job, rows in zip(jobs, found, strict=True)
        if rows.shape != serial[job].shape or not torch.allclose(rows, serial[job], atol=0.05)
    ]
    assert not wrong, f"{len(wrong)} of {len(jobs)} calls gave other boxes"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_threads_with_images_of_many_sizes_get_what_one_thread_gets(name, exported):
    model = YOLO(exported(format=name, dynamic=True))
    sides = [64, 96, 128, 160, 192, 224] * 4

    def boxes(side):
        image = synthetic_images((224, 224))[side % 3][:, :side].copy()
        return model.predict(image, imgsz=224, amp=False, conf=0.1, verbose=False)[0].boxes.data

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(boxes, sides))
    for side, rows in zip(sides, found, strict=True):
        assert torch.allclose(rows, boxes(side), atol=0.05), side


def test_one_thread_in_many_threads_leaves_torch_its_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        inside = threading.Barrier(3)
        counts = []

        def predict(end_first):
            with one_thread():
                inside.wait(timeout=30)
                counts.append(torch.get_num_threads())
                if end_first:
                    inside.wait(timeout=30)
            if not end_first:
                inside.wait(timeout=30)
            counts.append(torch.get_num_threads())

        threads = [threading.Thread(target=predict, args=(first,)) for first in (True, False)]
        for thread in threads:
            thread.start()
        inside.wait(timeout=30)
        with ThreadPoolExecutor(1) as pool:
            counts_of_a_new_thread = pool.submit(torch.get_num_threads).result()
        inside.wait(timeout=30)
        for thread in threads:
            thread.join()
        with ThreadPoolExecutor(1) as pool:
            later = pool.submit(torch.get_num_threads).result()
        assert (sorted(counts), counts_of_a_new_thread, later) == ([1, 1, 2, 2], 2, 2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_thread_is_not_given_the_network_of_another_threads_settings(finder_weights):
    image = synthetic_images((96, 96))[0]

    class Interrupted(YOLO):
        """A model with which another thread predicts at the worst moment: just when a network was kept."""

        interrupted = False

        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "_backend" and value is not None and not self.interrupted:
                self.interrupted = True
                self.predict(image, amp="bf16", verbose=False)

    model = Interrupted(finder_weights)
    model.predict(image, amp=False, verbose=False)
    assert model.interrupted and model.predictor.backend.precision.name == "fp32"
