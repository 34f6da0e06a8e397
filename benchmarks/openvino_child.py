"""OpenVINO's int8 of an ONNX graph by NNCF, in an environment of its own that has nothing else of ours.

    PYTHON openvino_child.py MODEL.onnx CALIBRATION.npz

Calibrates as NNCF's documentation does for transformers, then answers one line of JSON on stdin, {"ids": [[...]]},
with one on stdout: logits, and the seconds of the call by the clock and of the processor. The first line is what it is.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np


def main() -> None:
    """Quantize, then answer until stdin ends."""
    import nncf
    import openvino

    answers, sys.stdout = sys.stdout, sys.stderr  # what the libraries print must not stand among the answers
    model = openvino.convert_model(sys.argv[1])
    name = model.inputs[0].get_any_name()
    with np.load(sys.argv[2]) as calibration:
        items = [calibration[key] for key in sorted(calibration.files)]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(items, lambda ids: {name: ids}),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(items),
    )
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(quantized, "CPU", settings)
    request = compiled.create_infer_request()
    versions = {"openvino": openvino.__version__, "nncf": nncf.__version__, "calibration_items": len(items)}
    print(json.dumps(versions), file=answers, flush=True)
    for line in sys.stdin:
        ids = np.array(json.loads(line)["ids"], dtype=np.int64)
        wall, processor = time.perf_counter(), time.process_time()
        logits = next(iter(request.infer({name: ids}).values()))
        seconds = time.perf_counter() - wall, time.process_time() - processor
        print(json.dumps({"logits": logits.tolist(), "wall": seconds[0], "cpu": seconds[1]}), file=answers, flush=True)


if __name__ == "__main__":
    main()
