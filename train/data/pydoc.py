"""The English of Python's own help (`pydoc_data.topics`): a language-model data set that needs no download.

The text differs between Python versions, so results with this data set must name the version; `Dataset.source` has it,
with a hash of the text.
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
    """About 76,000 training and 7,000 test tokens (Python 3.11), with a vocabulary of at most 2,000.

    Words are lower-cased, numbers become `N`, and only sentence punctuation is kept; each paragraph is a line
    and ends with `<eos>`. A topic belongs to the test split if the CRC-32 of its name is divisible by ten,
    which does not change when a Python version adds topics. The vocabulary is the most frequent words of the
    training part; `<unk>` stands for the others.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UserError(
            "this Python comes without pydoc_data.topics; use dataset=text with your own data_dir"
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
