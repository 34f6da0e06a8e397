"""What Olive makes of a fine-tuned BERT-like classifier, in an environment of its own that has nothing else of ours.

    PYTHON olive_child.py MODEL_FOLDER CALIBRATION.csv OUT_FOLDER MAX_LENGTH

The model is a folder in Hugging Face's format; the CSV has the columns `text` and `label`. The workflows are those of
Olive's documentation for BERT on a CPU: convert, optimize as a transformer, quantize. On stdout a line of JSON each:
its name, the ONNX file or the error, and the seconds that it took. The first line is what was installed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["OLIVE_DISABLE_TELEMETRY"] = os.environ["HF_HUB_OFFLINE"] = "1"

_CONVERT = {"type": "OnnxConversion", "target_opset": 17}
_OPTIMIZE = {"type": "OrtTransformersOptimization", "model_type": "bert", "opt_level": 0, "float16": False}
_DYNAMIC = {"type": "OnnxDynamicQuantization", "precision": "int8"}
_STATIC = {"type": "OnnxStaticQuantization", "precision": "int8", "data_config": "calibration"}

WORKFLOWS: dict[str, list[dict[str, Any]]] = {
    "fp32": [_CONVERT],
    "fp32, optimized": [_CONVERT, _OPTIMIZE],
    "dynamic int8": [_CONVERT, _DYNAMIC],
    "dynamic int8, optimized": [_CONVERT, _OPTIMIZE, _DYNAMIC],
    "static int8, optimized": [_CONVERT, _OPTIMIZE, _STATIC],
}


def config(model: str, calibration: str, out: str, max_length: int, passes: list[dict[str, Any]]) -> dict[str, Any]:
    """A workflow as Olive's documentation writes it."""
    return {
        "input_model": {"type": "HfModel", "model_path": model, "task": "text-classification"},
        "systems": {
            "local": {
                "type": "LocalSystem",
                "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
            }
        },
        "data_configs": [
            {
                "name": "calibration",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {"data_name": "csv", "data_files": calibration, "split": "train"},
                "pre_process_data_config": {"model_name": model, "max_length": max_length, "input_cols": ["text"]},
                "dataloader_config": {"batch_size": 1},
            }
        ],
        "passes": {f"pass_{number}": each for number, each in enumerate(passes)},
        "host": "local",
        "target": "local",
        "output_dir": out,
        "cache_dir": str(Path(out).parent / "cache"),
        "log_severity_level": 3,
    }


def main() -> None:
    """Every workflow in turn; one that fails does not keep the others."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what the libraries print must not stand among the answers
    import olive
    import onnxruntime
    import torch
    import transformers

    libraries = {"olive": olive, "onnxruntime": onnxruntime, "torch": torch, "transformers": transformers}
    print(json.dumps({name: each.__version__ for name, each in libraries.items()}), file=answers, flush=True)
    model, calibration, out, max_length = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
    for name, passes in WORKFLOWS.items():
        started = time.monotonic()
        place = out / name.replace(",", "").replace(" ", "-")
        row: dict[str, Any] = {"name": name}
        try:
            olive.run(config(model, calibration, str(place), max_length, passes))
            row["file"] = str(next(place.rglob("*.onnx")))
        except Exception as error:  # whatever a workflow raises is its result
            row["error"] = f"{type(error).__name__}: {error}"[:500]
        print(json.dumps({**row, "seconds": round(time.monotonic() - started, 1)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
