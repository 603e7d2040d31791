"""Real plans from the real TensorRT-RTX builder, on a machine without a GPU."""
