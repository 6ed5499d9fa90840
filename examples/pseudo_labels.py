"""Learn from images that nobody has labelled, too: the network labels them for a second training.

    python examples/pseudo_labels.py mydata.yaml path/to/images

A network is trained on the labelled images and finds objects in the others; what it is confident of becomes their
labels (pseudo-labels; Lee, ICML workshops 2013), and a second network is trained on both. The validation images stay
the same. The new data set is in the folder `pseudo`, where the labels can be looked at and corrected. docs/starter.md
says what it gains.
"""

import shutil
import sys
from pathlib import Path

from detector import YOLO
from detector.data.convert import convert


def label(model, source, folder, conf):
    """Add the images of `source` in which the model finds something to the training split of a YOLO folder."""
    count = 0
    for result in model.predict(source, stream=True, conf=conf, iou=0.5, verbose=False):
        if len(result.boxes):
            image = Path(result.path)
            shutil.copy(image, folder / "images/train" / f"pseudo-{count}{image.suffix}")
            result.save_txt(folder / "labels/train" / f"pseudo-{count}.txt")
            count += 1
    return count


def main(data, source, out="pseudo", model="yolo11n.yaml", conf=0.25, **settings):
    folder = convert(data, "yolo", out)
    labelled = YOLO(model)
    before = labelled.train(data=data, name="labelled", **settings)
    count = label(labelled, source, folder, conf)
    both = YOLO(model)
    after = both.train(data=folder, name="with-pseudo-labels", **settings)
    print(f"{count} images have pseudo-labels now: {folder}")
    print(f"mAP50-95 {before.box.map:.3f} without them, {after.box.map:.3f} with them: {both.trainer.best}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/pseudo_labels.py DATA IMAGES")
    main(*sys.argv[1:])
