from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest
from helpers import colored, tiny_package, tiny_text_package

ROOT = Path(__file__).parent.parent

# Stands in for an installation without the training libraries: an import of any of them fails.
BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "transformers", "sklearn", "onnx", "train", "compress"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
"""


def _python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"{BLOCK}\nsys.path.insert(0, {str(ROOT)!r})\n{code}"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_the_service_imports_without_training_libraries_a_model_or_telemetry(tmp_path: Path) -> None:
    code = """
import os
os.environ.pop("BENTOML_DO_NOT_TRACK", None)
os.environ.pop("LIMBECK_PACKAGE", None)
from bentoml._internal.utils.analytics.usage_stats import do_not_track
assert not do_not_track()  # as BentoML's command line asks, before it imports the service
from serve.service import Classifier
assert do_not_track()
assert Classifier.name == "Classifier" and list(Classifier.apis) == ["predict"], Classifier.apis
import serve.launch
print("imported")
"""
    result = _python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("imported\n")


@pytest.mark.parametrize("task", ["image", "text"])
def test_a_package_answers_without_training_libraries(tmp_path: Path, task: str) -> None:
    (tiny_package if task == "image" else tiny_text_package)(tmp_path / "package")
    item = b64encode(colored(255, 0, 0)).decode() if task == "image" else "a very good film"
    code = f"""
import os
os.environ["LIMBECK_PACKAGE"] = "package"
from serve.service import Classifier
classifier = Classifier.inner()
answer = classifier.predict([{item!r}], 1)
assert answer["predictions"][0]["label"] in classifier.models.default.labels, answer
classifier.close()
assert not {{"torch", "transformers"}} & sys.modules.keys()
print("answered")
"""
    result = _python(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("answered\n")


def test_the_blocked_libraries_are_really_blocked(tmp_path: Path) -> None:
    result = _python("import torch", tmp_path)
    assert result.returncode == 1
    assert "torch is blocked" in result.stderr


def test_a_bad_limit_is_one_readable_line(tmp_path: Path) -> None:
    result = _python("import os\nos.environ['LIMBECK_MAX_ITEMS'] = 'many'\nimport serve.service", tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        "error: LIMBECK_MAX_ITEMS is 'many', expected a whole number above 0",
        "hint: unset LIMBECK_MAX_ITEMS for its default",
    ]


@pytest.mark.parametrize("package", ["serve", "compress"])
def test_onnx_runtime_reports_nothing_and_leaves_no_device_id(tmp_path: Path, package: str) -> None:
    model = tiny_package(tmp_path / "package").path / "model.onnx"
    code = f"import {package}, onnxruntime; onnxruntime.InferenceSession({str(model)!r})"
    kept = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    home = tmp_path / "home"
    home.mkdir()
    environ = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=120)
    assert list(home.rglob("*")) == []
