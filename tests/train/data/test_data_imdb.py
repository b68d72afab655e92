"""IMDB reviews, on a made-up set in the publisher's form."""

import numpy as np
import pytest

from train import data
from train.data import imdb
from train.errors import UserError

REVIEWS = {
    ("train", "neg"): ["It's bad.<br /><br />Bad!", "bad plot"],
    ("train", "pos"): ["A good film", "good, good"],
    ("test", "neg"): ["bad sequel"],
    ("test", "pos"): ["a good good good good good film"],
    ("train", "unsup"): ["who knows"],
}


@pytest.fixture
def reviews(tmp_path):
    for (split, group), texts in REVIEWS.items():
        folder = tmp_path / "aclImdb" / split / group
        folder.mkdir(parents=True)
        for i, review in enumerate(texts):
            (folder / f"{i}_7.txt").write_text(review)
    return tmp_path


def spelled(split, vocabulary):
    words = np.array(vocabulary)
    return sorted(
        (" ".join(words[row[:n]]), int(label))
        for row, n, label in zip(split.inputs, split.sizes, split.targets, strict=True)
    )


def test_reviews_become_words_in_rows_of_one_length(reviews, tmp_path):
    made = imdb.prepare_imdb(str(tmp_path / "tfds"), from_dir=str(reviews))
    assert made == tmp_path / "tfds" / "imdb_reviews" / "plain_text" / "1.0.0"
    dataset = data.load("imdb_reviews", data_dir=str(tmp_path / "tfds"), sequence_length=6)
    # By frequency in the training reviews, then alphabetically, from id 4 on.
    vocabulary = ("<pad>", "<start>", "<unk>", "<unused>", "bad", "good", "br", "a", "film", "it's", "plot")
    assert dataset.vocab_size == len(vocabulary)
    assert spelled(dataset.train, vocabulary) == [
        ("<start> a good film", 1),
        ("<start> bad plot", 0),
        ("<start> good good", 1),
        ("<start> it's bad br br bad", 0),
    ]
    assert spelled(dataset.test, vocabulary) == [("<start> a good good good good", 1), ("<start> bad <unk>", 0)]
    assert (dataset.train.inputs[dataset.train.inputs == 0]).size == 4 * 6 - (4 + 3 + 3 + 6)
    assert (dataset.task, dataset.num_classes, dataset.shuffle) == ("text_classification", 2, True)
    assert dataset.train.inputs.dtype == dataset.train.targets.dtype == np.int32


def test_the_cached_reviews_are_the_same_at_another_length(reviews, tmp_path, monkeypatch):
    imdb.prepare_imdb(str(tmp_path / "tfds"), from_dir=str(reviews / "aclImdb"))
    long = data.load("imdb_reviews", data_dir=str(tmp_path / "tfds"), sequence_length=9)
    monkeypatch.setattr(imdb, "_encode", None)
    short = data.load("imdb_reviews", data_dir=str(tmp_path / "tfds"), sequence_length=2)
    np.testing.assert_array_equal(short.train.inputs, long.train.inputs[:, :2])
    assert short.test.sizes.tolist() == [2, 2]


def test_stock_tfds_reads_the_prepared_set(reviews, tmp_path):
    import tensorflow_datasets as tfds

    imdb.prepare_imdb(str(tmp_path / "tfds"), from_dir=str(reviews))
    source = tfds.data_source("imdb_reviews", data_dir=tmp_path / "tfds", download=False)
    assert sorted(source) == ["test", "train", "unsupervised"]
    assert sorted((e["text"].decode(), int(e["label"])) for e in source["train"]) == sorted(
        [(r, 0) for r in REVIEWS["train", "neg"]] + [(r, 1) for r in REVIEWS["train", "pos"]]
    )


def test_a_review_that_is_not_utf8_is_refused_by_name(reviews, tmp_path):
    (reviews / "aclImdb/test/pos/0_7.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"0_7\.txt is not UTF-8 text: byte 0xe9 at offset 3"):
        imdb.prepare_imdb(str(tmp_path / "tfds"), from_dir=str(reviews))
    assert list((tmp_path / "tfds").iterdir()) == []


def test_an_empty_group_or_a_foreign_folder_is_refused(reviews, tmp_path):
    (reviews / "aclImdb/test/pos/0_7.txt").unlink()
    with pytest.raises(UserError, match="pos contains no reviews"):
        imdb.prepare_imdb(str(tmp_path / "tfds"), from_dir=str(reviews))
    with pytest.raises(UserError, match="contains no train/pos"):
        imdb.prepare_imdb(str(tmp_path / "tfds"), from_dir=str(reviews / "aclImdb" / "test"))


def test_a_set_that_is_not_there_is_refused_with_the_command(tmp_path):
    with pytest.raises(UserError, match=r"python -m train\.data prepare imdb_reviews --data-dir"):
        data.load("imdb_reviews", data_dir=str(tmp_path))


@pytest.mark.data
def test_the_most_frequent_words_of_the_real_set_are_those_of_keras_copy(real_data, tmp_path):
    imdb.prepare_imdb(str(tmp_path), from_dir=str(real_data("imdb")))
    dataset = data.load("imdb_reviews", data_dir=str(tmp_path), sequence_length=200)
    assert dataset.vocab_size == 10_000
    # Ranks 1 to 17 of keras.datasets.imdb.get_word_index().
    known = [
        "the",
        "and",
        "a",
        "of",
        "to",
        "is",
        "br",
        "in",
        "it",
        "i",
        "this",
        "that",
        "was",
        "as",
        "for",
        "with",
        "movie",
    ]
    assert dataset.class_names == ("neg", "pos")
    arrays, _ = imdb.decoded_cache.cached(tmp_path / "imdb_reviews" / "plain_text" / "1.0.0", dict, form="imdb 2")
    assert arrays["vocabulary"][4:21].tolist() == known
    assert (dataset.train.inputs[:, 0] == 1).all()
