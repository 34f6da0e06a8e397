"""A student with fewer heads and neurons, from recipe to report; and what cannot be, told before any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_compress_as_it_is import recipe_of
from text_models import tiny_folder
from tiny_run import run_content

from compress.recipe_file import parse_recipe
from serve.errors import UserError

NARROW = {"heads": 1, "ffn_width": 24, "importance_items": 30}


def recipe(tmp_path: Path, **options: Any) -> dict[str, Any]:
    teacher = tiny_folder(tmp_path / "model", labels=("pos", "neg"))
    content = recipe_of(tmp_path, f"hf:{teacher}") | {"quantize": {"precisions": ["fp32"]}}
    student = {"name": "narrow", "model": "teacher-layers:2", "options": options, "fit": {"epochs": 1}}
    content["students"] = [{**student, "prune": {"vocabulary": "seen"}}]
    return content


def test_a_narrow_student_goes_all_the_way(tmp_path: Path) -> None:
    content = recipe(tmp_path, **NARROW)
    ran = run_content(content, tmp_path / "run", memory=False)
    by_id = {variant.id: variant for variant in ran.report.variants}
    assert by_id["narrow-fp32"].macs < by_id["teacher-fp32"].macs
    assert by_id["narrow-fp32"].size_bytes < by_id["teacher-fp32"].size_bytes
    spec = json.loads((tmp_path / "run" / "students" / "narrow" / "spec.json").read_text())
    assert spec["network"]["widths"] == {"heads": 1, "ffn": 24}
    assert run_content(content, tmp_path / "run", memory=False).console.redone == set()


def test_what_the_teacher_has_not_is_told_before_it_is_trained(tmp_path: Path) -> None:
    content = recipe(tmp_path, heads=3)
    with pytest.raises(UserError, match=r"heads = 3, but the teacher .* has 2"):
        run_content(content, tmp_path / "run", memory=False)
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_width_that_the_runtime_is_not_made_for_is_refused_when_the_recipe_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no multiple of 8"):
        parse_recipe(recipe(tmp_path, ffn_width=25), "test")
