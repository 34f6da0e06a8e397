from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

from tokenizers import Tokenizer

from train.tokenizers import PAD_ID, train_tokenizer, vocabulary_size

CHINESE = [row[0] for row in csv.reader((Path(__file__).parent / "data" / "chinese.csv").open(encoding="utf-8"))][1:]
ENGLISH = ["A good film, not a bad one.", "The worst films are boring films.", "Capable, notable, able people."] * 3


def tokens(tokenizer: bytes, text: str) -> list[str]:
    return Tokenizer.from_buffer(tokenizer).encode(text).tokens


def test_chinese_is_cut_into_characters() -> None:
    tokenizer = train_tokenizer(CHINESE, 1000, True)
    assert tokens(tokenizer, "这部电影不好看。") == ["▁", *"这部电影不好看。"]


def test_kana_is_cut_into_pieces_and_never_one_unknown_word() -> None:
    tokenizer = train_tokenizer(["ひらがなとカタカナの文章です"] * 3, 500, True)
    pieces = tokens(tokenizer, "カタカナですの文")
    assert "[UNK]" not in pieces
    assert len(pieces) > 2


def test_words_keep_their_beginning_and_rare_ones_are_cut() -> None:
    tokenizer = train_tokenizer(ENGLISH, 300, True)
    assert tokens(tokenizer, "FILM") == ["▁film"]
    assert tokens(tokenizer, "able")[0].startswith("▁")
    assert tokens(tokenizer, "unfilm") != ["▁film"]
    assert len(tokens(tokenizer, "bf")) > 1


def test_case_counts_only_where_it_is_asked_to() -> None:
    tokenizer = train_tokenizer(ENGLISH, 300, False)
    assert tokens(tokenizer, "The") != tokens(tokenizer, "the")
    assert tokens(tokenizer, "résumé") == tokens(tokenizer, "re\u0301sume\u0301")


def test_a_strange_character_costs_no_more_than_itself() -> None:
    tokenizer = train_tokenizer(ENGLISH, 300, True)
    assert tokens(tokenizer, "film🙂film") == ["▁film", "[UNK]", "fi", "lm"]


def test_spaces_and_widths_do_not_matter() -> None:
    tokenizer = train_tokenizer(ENGLISH, 300, True)
    assert tokens(tokenizer, "  a \t\n good\u3000film ") == tokens(tokenizer, "ａ good film")


def test_the_vocabulary_has_its_size_and_its_padding() -> None:
    tokenizer = train_tokenizer(ENGLISH, 60, True)
    assert vocabulary_size(tokenizer) == 60
    assert Tokenizer.from_buffer(tokenizer).token_to_id("[PAD]") == PAD_ID
    assert vocabulary_size(train_tokenizer(CHINESE, 100, True)) <= 100


def test_another_process_learns_the_same_tokenizer() -> None:
    code = (
        "import sys, hashlib; from train.tokenizers import train_tokenizer; "
        f"sys.stdout.write(hashlib.sha256(train_tokenizer({ENGLISH + CHINESE!r}, 300, True)).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    assert len({run.stdout for run in runs}) == 1


def test_an_endless_word_takes_no_endless_time() -> None:
    tokenizer = Tokenizer.from_buffer(train_tokenizer(ENGLISH, 300, True))
    started = time.monotonic()
    tokenizer.encode("ab" * 500_000)
    assert time.monotonic() - started < 20
