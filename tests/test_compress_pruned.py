"""A student whose unused embeddings are left out: in its package, in the figures and in the report's notes."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_compress_as_it_is import recipe_of
from text_models import tiny_folder
from tiny_run import content, run_content
from tokenizers import Tokenizer

from compress.recipe_file import parse_recipe
from serve.errors import UserError


def test_a_pruned_student_is_smaller_in_every_figure_and_the_report_says_what_it_cost(tmp_path: Path) -> None:
    teacher = tiny_folder(tmp_path / "model", labels=("pos", "neg"))
    recipe = recipe_of(tmp_path, f"hf:{teacher}")
    recipe |= {"quantize": {"precisions": ["fp32"]}, "graph": {"rewrites": "none"}}
    student = {"model": "teacher-layers:1", "fit": {"epochs": 1}, "control": False}
    recipe["students"] = [
        {"name": "whole", **student},
        {"name": "small", **student, "prune": {"vocabulary": "seen"}},
    ]
    ran = run_content(recipe, tmp_path / "run", memory=False)
    by_name = {variant.name: variant for variant in ran.report.variants if variant.runtime == "onnxruntime"}
    packages = tmp_path / "run" / "packages"
    sizes = [
        Tokenizer.from_file(str(packages / f"{name}-fp32" / "tokenizer.json")).get_vocab_size()
        for name in ("whole", "small")
    ]
    assert sizes[1] < sizes[0]
    width = 32
    assert by_name["whole"].params - by_name["small"].params == width * (sizes[0] - sizes[1])
    assert by_name["small"].size_bytes < by_name["whole"].size_bytes
    assert by_name["small"].accuracy == by_name["whole"].accuracy  # every word of these texts was seen
    (note,) = [note for note in ran.report.training_notes["small"] if "pruned" in note]
    assert "; 0 of 60 validation texts are cut into other tokens" in note
    assert note in (tmp_path / "run" / "report.html").read_text()
    assert run_content(recipe, tmp_path / "run", memory=False).console.redone == set()


def test_images_have_no_vocabulary() -> None:
    recipe = content()
    recipe["students"][0]["prune"] = {"vocabulary": "seen"}
    with pytest.raises(UserError, match=r"prune\.vocabulary is for texts"):
        parse_recipe(recipe, "test")
