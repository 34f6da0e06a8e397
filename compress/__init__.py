"""Start here: pipeline.py is the main flow."""

import os

# torch's OpenMP threads spin while they wait for each other. Beside any other load that costs dearly (measured on 2
# cores with one busy: 10 s instead of 1.4 s for an epoch on digits), and without load sleeping costs almost nothing.
# Read once, when torch is first imported, so it must stand here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# ONNX Runtime reports its use to Microsoft unless told not to before it is first imported; see serve/__init__.py.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
