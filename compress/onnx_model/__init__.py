"""A user's own ONNX classifier: read, checked, run beside itself, and packaged. `importing.py` is the door."""

from compress.onnx_model.importing import OnnxClassifier as OnnxClassifier
from compress.onnx_model.importing import import_onnx as import_onnx
from compress.onnx_model.importing import package_onnx as package_onnx
