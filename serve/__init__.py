"""What ships: the model package, preprocessing, the ONNX Runtime predictor and the HTTP service. Torch-free."""

import os

# ONNX Runtime reports its use to Microsoft, under a device id that it leaves in the home folder, unless told not to
# (1.31 for Linux does). It asks once, when it is first imported, so this must stand here.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
