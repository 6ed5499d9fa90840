"""COCO evaluation, curves and the confusion matrix."""
