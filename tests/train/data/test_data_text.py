"""Language-model text: vocabulary, segmentation, Penn Treebank, Python's own help, and bad files."""

import numpy as np
import pytest

from train import data
from train.data import ptb, text
from train.errors import UserError

TRAIN = "the cat sat on the mat\nthe dog sat\n\na <unk> ran\n" * 5
VALID = "a cat ran\nthe zebra sat on a dog\n" * 5


def folder(path, train=TRAIN, valid=VALID, prefix=""):
    path.mkdir(exist_ok=True)
    for role, content in (("train", train), ("valid", valid)):
        (path / f"{prefix}{role}.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def segments_one_by_one(stream, rows, length):
    """The report's batches, with loops: rows side by side, cut every `length` tokens, short ends dropped."""
    per_row = len(stream) // rows
    columns = [stream[r * per_row : (r + 1) * per_row] for r in range(rows)]
    inputs, targets = [], []
    start = 0
    while start + length + 1 <= per_row:
        for row in columns:
            inputs.append(row[start : start + length])
            targets.append(row[start + 1 : start + length + 1])
        start += length
    return inputs, targets


@pytest.mark.parametrize(
    ("tokens", "rows", "length"), [(100, 4, 5), (101, 4, 6), (24, 4, 5), (97, 1, 1), (369, 10, 35), (360, 10, 35)]
)
def test_segments_are_those_of_the_loops(tokens, rows, length):
    stream = np.random.default_rng(0).integers(0, 50, tokens).astype(np.int32)
    split = text.segments(stream, rows, length, "batch_size", "text")
    inputs, targets = segments_one_by_one(stream, rows, length)
    np.testing.assert_array_equal(split.inputs, inputs)
    np.testing.assert_array_equal(split.targets, targets)
    assert split.inputs.flags.c_contiguous


@pytest.mark.parametrize(("tokens", "rows", "length"), [(23, 4, 5), (359, 10, 36), (3, 4, 1), (0, 1, 1)])
def test_a_text_too_short_for_one_segment_is_refused(tokens, rows, length):
    with pytest.raises(UserError, match=f"has {tokens} tokens.*batch_size={rows} rows"):
        text.segments(np.zeros(tokens, np.int32), rows, length, "batch_size", "text")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"test_batch_size": -1}, "test_batch_size=-1"),
        ({"sequence_length": 0}, "sequence_length=0"),
    ],
)
def test_sizes_below_one_are_refused(changed, message, tmp_path):
    options = {"batch_size": 2, "sequence_length": 3} | changed
    with pytest.raises(UserError, match=message):
        data.load("text", data_dir=folder(tmp_path), **options)


def test_the_stream_is_every_line_with_eos_and_the_vocabulary_the_training_files(tmp_path):
    dataset = data.load("text", data_dir=folder(tmp_path), batch_size=1, sequence_length=4)
    words = np.array(dataset.class_names)
    expected = TRAIN.replace("\n", " <eos> ").split()
    read = words[dataset.train.inputs.ravel()]
    np.testing.assert_array_equal(read, expected[: len(read)])
    assert len(expected) - len(read) <= 4
    assert set(dataset.class_names) == set(expected)
    assert dataset.num_classes == dataset.vocab_size == len(words)
    assert (dataset.task, dataset.shuffle, dataset.mean) == ("text", False, ())
    assert dataset.train.inputs.dtype == dataset.train.targets.dtype == np.int32


def test_an_unknown_word_becomes_unk(tmp_path):
    dataset = data.load("text", data_dir=folder(tmp_path), batch_size=1, sequence_length=4)
    read = np.array(dataset.class_names)[dataset.test.inputs.ravel()]
    expected = VALID.replace("zebra", "<unk>").replace("\n", " <eos> ").split()
    np.testing.assert_array_equal(read, expected[: len(read)])


# A text whose training file has no <unk>: its valid file, and the number of its words that become <unk>.
UNKNOWN_WORDS = {
    "one": ("a b zebra a b\n" * 9, 9),
    "none": ("a b a b a\n" * 9, 0),
    "all": ("x y z\n" * 9, 27),
    "one that looks like a number": ("a b 1,5\n" * 9, 9),
}


@pytest.mark.parametrize("case", UNKNOWN_WORDS)
def test_unknown_words_become_unk_though_the_training_file_has_none(case, tmp_path, caplog):
    valid, count = UNKNOWN_WORDS[case]
    where = folder(tmp_path, train="a b c\n" * 9, valid=valid)
    dataset = data.load("text", data_dir=where, batch_size=1, sequence_length=4)
    expected = [
        "<unk>" if word not in ["a", "b", "c", "<eos>"] else word for word in valid.replace("\n", " <eos> ").split()
    ]
    read = np.array(dataset.class_names)[dataset.test.inputs.ravel()]
    np.testing.assert_array_equal(read, expected[: len(read)])
    assert dataset.class_names == ("a", "b", "c", "<eos>", *["<unk>"] * (count > 0))
    assert dataset.vocab_size == dataset.num_classes == len(dataset.class_names)
    assert len(caplog.records) == (count > 0)
    assert not count or f": {count} of {len(valid.split())} words" in caplog.text


@pytest.mark.parametrize("case", [case for case, (_, count) in UNKNOWN_WORDS.items() if count])
def test_without_add_unk_an_unknown_word_is_refused_by_word_file_and_line(case, tmp_path):
    where = folder(tmp_path, train="a b c\n" * 9, valid="a b c\n" + UNKNOWN_WORDS[case][0])
    word = next(word for word in UNKNOWN_WORDS[case][0].split() if word not in "abc")
    with pytest.raises(UserError, match=rf"valid\.txt, line 2: the word '{word}' .* add_unk"):
        data.load("text", data_dir=where, batch_size=1, sequence_length=4, add_unk=False)


def test_add_unk_makes_no_other_data_of_a_text_that_needs_none(tmp_path):
    """So it is no part of a run's identity."""
    where = folder(tmp_path)
    with_it, without = (
        data.load("text", data_dir=where, batch_size=2, sequence_length=3, add_unk=a) for a in (True, False)
    )
    assert with_it.class_names == without.class_names
    np.testing.assert_array_equal(with_it.test.inputs, without.test.inputs)
    assert with_it.digest == without.digest


def test_the_test_split_has_its_own_number_of_rows(tmp_path):
    dataset = data.load("text", data_dir=folder(tmp_path), batch_size=3, test_batch_size=2, sequence_length=4)
    stream = text.encode(
        [line.split() for line in VALID.removesuffix("\n").split("\n")],
        {word: i for i, word in enumerate(dataset.class_names)},
        "valid",
    )
    np.testing.assert_array_equal(dataset.test.inputs, segments_one_by_one(stream, 2, 4)[0])
    again = data.load("text", data_dir=str(tmp_path), batch_size=3, sequence_length=4)
    np.testing.assert_array_equal(again.test.inputs, segments_one_by_one(stream, 3, 4)[0])


def test_only_line_feeds_end_a_line_and_a_byte_order_mark_is_no_word(tmp_path):
    where = folder(tmp_path, train="\ufeffa\u2028b\x0cc\n" * 9, valid="a b c\n" * 9)
    dataset = data.load("text", data_dir=where, batch_size=1, sequence_length=4)
    assert dataset.class_names[:4] == ("a", "b", "c", "<eos>")


def test_files_may_have_a_prefix_as_penn_treebanks(tmp_path):
    dataset = data.load("text", data_dir=folder(tmp_path, prefix="ptb."), batch_size=1, sequence_length=4)
    assert len(dataset.test)


BAD_TEXT = {
    "not UTF-8": (b"good words\nthen \xe9\n", r"train\.txt is not UTF-8 text: byte 0xe9 at offset 16"),
    "UTF-16": ("words\n".encode("utf-16"), r"train\.txt is not UTF-8 text: byte 0xff at offset 0"),
    "empty": (b"", r"train\.txt contains no words"),
    "blank": (b"\n \n", r"train\.txt contains no words"),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_a_bad_text_file_is_refused_in_one_line(case, tmp_path):
    content, message = BAD_TEXT[case]
    with pytest.raises(UserError, match=message) as caught:
        data.load("text", data_dir=folder(tmp_path, train=content), batch_size=1, sequence_length=4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "absent", "file"])
def test_no_folder_is_refused(name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="needs a data_dir with train"):
        data.load("text", data_dir=str(tmp_path / name) if name else "")


def test_a_missing_or_ambiguous_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"has no train\.txt"):
        data.load("text", data_dir=str(tmp_path))
    for prefix in ("ptb.", "wiki."):
        folder(tmp_path, prefix=prefix)
    with pytest.raises(UserError, match=r"ptb\.train\.txt, wiki\.train\.txt"):
        data.load("text", data_dir=str(tmp_path))


def test_ptb_that_is_not_prepared_is_refused_with_the_command(tmp_path):
    with pytest.raises(UserError, match=r"python -m train\.data prepare ptb --data-dir .* --from-dir DIR"):
        data.load("ptb", data_dir=str(tmp_path))


def test_a_foreign_ptb_is_refused_and_leaves_nothing(tmp_path):
    where = folder(tmp_path / "source", prefix="ptb.")
    with pytest.raises(UserError, match=r"ptb\.train\.txt differs.*f26c4b92c5fdc7b3f8c7cdcb991d8420"):
        ptb.prepare_ptb(str(tmp_path / "data"), from_dir=where)
    assert list((tmp_path / "data").iterdir()) == []


def test_pydoc_is_small_and_its_ids_fill_the_vocabulary():
    dataset = data.load("pydoc", batch_size=20, test_batch_size=10)
    assert dataset.num_classes <= 2000
    assert {"<unk>", "<eos>", "the", "N"} <= set(dataset.class_names)
    assert dataset.train.inputs.max() < dataset.num_classes
    assert 50_000 < dataset.train.inputs.size < 200_000
    assert dataset.test.inputs.size > 3_000
    unknown = dataset.class_names.index("<unk>")
    assert (dataset.train.inputs == unknown).mean() < 0.05


def test_pydoc_is_the_same_every_time_and_names_its_version():
    import platform

    first, second = (data.load("pydoc", batch_size=20) for _ in range(2))
    np.testing.assert_array_equal(first.train.inputs, second.train.inputs)
    assert first.class_names == second.class_names
    assert platform.python_version() in first.source


def test_pydocs_splits_share_no_topic():
    import zlib
    from pydoc_data.topics import topics

    from train.data.pydoc import _paragraphs

    test = [line for key in sorted(topics) if zlib.crc32(key.encode()) % 10 == 0 for line in _paragraphs(topics[key])]
    dataset = data.load("pydoc", batch_size=1, sequence_length=1)
    words = np.array(dataset.class_names)[dataset.test.inputs.ravel()]
    stream = [word for line in test for word in (*line, "<eos>")]
    same = np.array([a in (b, "<unk>") for a, b in zip(words, stream[: len(words)], strict=True)])
    assert same.all()


@pytest.mark.data
def test_the_real_ptb_has_the_published_numbers_of_tokens_and_words(real_data, tmp_path):
    ptb.prepare_ptb(str(tmp_path), from_dir=str(real_data("ptb")))
    dataset = data.load("ptb", data_dir=str(tmp_path), batch_size=20, test_batch_size=10)
    assert dataset.num_classes == 10_000
    assert dataset.train.inputs.shape == ((929_589 // 20 - 1) // 35 * 20, 35)
    assert dataset.test.inputs.shape == ((73_760 // 10 - 1) // 35 * 10, 35)
    assert sorted(path.name for path in (tmp_path / "ptb").iterdir()) == sorted(ptb._MD5)
