"""Trackers: a sweep in TensorBoard, in MLflow and among Ray's own metrics."""
