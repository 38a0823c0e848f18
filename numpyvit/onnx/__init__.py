"""Models as ONNX files, for other runtimes: a graph of operators, and a function for each class of layers."""

from .export import export_onnx

__all__ = ["export_onnx"]
