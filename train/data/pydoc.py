"""The English of Python's own help (`pydoc_data.topics`): a language-model set that needs no download.

What Python ships differs from version to version, so figures made with this set name the version; it
stands in `Dataset.source`, with a hash of the text.
"""

from __future__ import annotations

import collections
import hashlib
import platform
import re
import zlib

from train.data.dataset import Dataset
from train.data.text import UNK, language_model
from train.errors import UserError

VOCABULARY = 2_000

_TOKEN = re.compile(r"[^\W\d]\w*(?:'[a-z]+)?|\d+|[.,;:?!()]")


def load_pydoc(*, batch_size: int, test_batch_size: int, sequence_length: int) -> Dataset:
    """Some 76,000 training and 7,000 test tokens (Python 3.11), over a vocabulary of at most 2,000.

    Words are lower-cased, numbers become `N`, of the punctuation that of sentences is kept; a paragraph is
    a line and ends with `<eos>`. A topic belongs to the test split where CRC-32 of its name is divisible
    by ten: that stays so when a Python version adds topics. The most frequent words of the training part
    are the vocabulary, `<unk>` stands for the others.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UserError(
            "this Python comes without pydoc_data.topics; use dataset=text with a data_dir of your own"
        ) from error

    parts: dict[bool, list[list[str]]] = {False: [], True: []}
    digest = hashlib.sha256()
    for topic in sorted(topics):
        digest.update(f"{topic}\n{topics[topic]}\n".encode())
        parts[zlib.crc32(topic.encode()) % 10 == 0] += _paragraphs(topics[topic])
    counts = collections.Counter(word for line in parts[False] for word in line)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    known = set(ranked[: VOCABULARY - 2])  # besides <unk> and <eos>
    train, test = (
        [[word if word in known else UNK for word in line] for line in parts[is_test]] for is_test in (False, True)
    )
    return language_model(
        train,
        test,
        name="pydoc",
        where="pydoc_data.topics",
        batch_size=batch_size,
        test_batch_size=test_batch_size,
        sequence_length=sequence_length,
        source=f"pydoc_data.topics of Python {platform.python_version()}, SHA-256 {digest.hexdigest()[:16]}",
        digest=digest.hexdigest(),
    )


def _paragraphs(text: str) -> list[list[str]]:
    tokens = (
        ["N" if token.isdigit() else token for token in _TOKEN.findall(paragraph.lower())]
        for paragraph in re.split(r"\n\s*\n", text)
    )
    return [line for line in tokens if any(token[0].isalpha() for token in line)]
