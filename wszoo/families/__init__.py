"""Families turn one kind of model into ONNX graphs."""
