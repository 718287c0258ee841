"""Log a sweep to TensorBoard, MLflow or Ray's own metrics."""
