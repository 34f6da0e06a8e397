"""A tokenizer learned from the training texts of any language, for models that bring none.

Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) within words. Chinese characters stand alone; a run of kana,
Thai or any other script without spaces is cut into its most frequent pieces, and in the end into characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.normalizers import NFKC, BertNormalizer, Replace, Sequence, Strip
from tokenizers.pre_tokenizers import Metaspace, Punctuation, Split
from tokenizers.trainers import BpeTrainer

PAD, UNKNOWN = "[PAD]", "[UNK]"
PAD_ID = 0
_WORD_START = "▁"
_RARE = 2  # what occurs less often in the training texts is no token of its own
_CHARACTERS = 0.75  # of the vocabulary at most; Chinese alone has thousands


def train_tokenizer(texts: Iterable[str], vocabulary: int, lowercase: bool) -> bytes:
    """The tokenizer.json of at most `vocabulary` tokens. The same texts give the same bytes.

    BPE and not WordPiece: a character that never occurred costs its word one unknown token, not the whole word, and a
    request of one endless word is cut in n log n steps where WordPiece needs more than n^2.
    """
    tokenizer = Tokenizer(BPE(unk_token=UNKNOWN, fuse_unk=True))
    # NFKC makes full-width and half-width forms one; accents stay, since they tell words apart
    clean = BertNormalizer(handle_chinese_chars=False, strip_accents=False, lowercase=lowercase)
    tokenizer.normalizer = Sequence([NFKC(), clean, Replace(Regex(" +"), " "), Strip()])
    # A mark before each word: without it "able" and the end of "capable" are one token; on TREC that was 1.1 points
    # worse, within noise (2 seeds, 500 items). An end_of_word_suffix would do too, but then BPE breaks ties by the
    # order of a hash map, in each process another.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [Metaspace(_WORD_START), Split(Regex(r"\p{Han}"), "isolated"), Punctuation("isolated")]
    )
    texts = list(texts)
    alphabet = _alphabet(tokenizer, texts, max(1, round(vocabulary * _CHARACTERS)))
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=_RARE,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=[PAD, UNKNOWN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    content: bytes = tokenizer.to_str().encode()
    return content


def _alphabet(tokenizer: Tokenizer, texts: Iterable[str], size: int) -> list[str]:
    """The most frequent characters. The trainer's own choice between equally frequent ones is another each time."""
    counts = Counter({_WORD_START: len(_WORD_START)})
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text).replace(" ", _WORD_START))
    return [character for character, _ in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:size]]


def vocabulary_size(tokenizer: bytes) -> int:
    """How many tokens a tokenizer.json holds."""
    return int(Tokenizer.from_buffer(tokenizer).get_vocab_size())
