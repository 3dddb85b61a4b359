"""Policies as ONNX graphs, and the folders that hold them."""
