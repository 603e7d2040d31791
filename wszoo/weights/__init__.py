"""Weights: taken out of ONNX graphs, kept once in packs, and given back."""
