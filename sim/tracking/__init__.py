"""Tracking: TensorBoard, the files of a run folder, the console."""
