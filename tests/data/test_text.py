"""Text as sequences of tokens: from a file, from a data set, by any tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

import metaprune as mp
from metaprune.data import DataError, load_text
from metaprune.train.task import settings_of


@pytest.fixture
def novel(tmp_path: Path) -> Path:
    path = tmp_path / "novel.txt"
    path.write_text("".join(chr(97 + i % 26) for i in range(1000)), encoding="utf-8")
    return path


def test_a_file_is_cut_into_three_parts_in_order(novel: Path) -> None:
    text = load_text(novel, length=20, batch_size=8)
    assert [len(part.tokens) for part in (text.train, text.val, text.test)] == [40, 5, 5]  # type: ignore[union-attr]
    assert text.vocabulary == 256
    whole = torch.cat([part.tokens.flatten() for part in (text.train, text.val, text.test)])  # type: ignore[union-attr]
    assert bytes(whole.tolist()).decode() == novel.read_text(encoding="utf-8")
    assert repr(text) == "Text(novel.txt: 40 train, 5 val, 5 test sequences of 20; 256 tokens)"
    assert settings_of(text.train) == {"data.tokens": "bytes", "data.length": "20"}


def test_only_the_training_part_is_shuffled(novel: Path) -> None:
    text = load_text(novel, length=20, batch_size=8)
    torch.manual_seed(1)
    one, two = torch.cat(list(text.train)), torch.cat(list(text.train))
    torch.manual_seed(1)
    assert torch.equal(one, torch.cat(list(text.train)))
    assert not torch.equal(one, two)
    assert torch.equal(one.sort(0).values, two.sort(0).values)
    assert torch.equal(torch.cat(list(text.val)), text.val.tokens)
    assert [len(batch) for batch in text.train] == [8] * 5 == [8] * len(text.train)


def test_tokens_are_near_a_device(novel: Path) -> None:
    train = load_text(novel, length=20, batch_size=8).train
    assert train.near(torch.device("meta")).tokens.is_meta
    assert train.near(torch.device("cpu")) is train


class Words:
    """As Hugging Face's tokenizers are."""

    name_or_path = "user/words"

    def __len__(self) -> int:
        return 50

    def encode(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]


def test_a_data_set_with_a_tokenizer() -> None:
    rows = {"train": ["a bb ccc"] * 30, "validation": ["dd"] * 40, "test": ["e ff"] * 10, "extra": ["g"]}
    splits = datasets.DatasetDict({name: datasets.Dataset.from_dict({"text": texts}) for name, texts in rows.items()})
    text = load_text(splits, Words(), length=10)
    assert text.vocabulary == 50
    assert text.train.tokens.tolist() == [([1, 2, 3] * 30)[i : i + 10] for i in range(0, 90, 10)]
    assert text.val.tokens.tolist() == [[2] * 10] * 4
    assert text.test is not None
    assert settings_of(text.train)["data.tokens"] == "user/words"
    numbers = [str(number) for number in range(100)]
    counted = {"train": datasets.Dataset.from_dict({"text": numbers})}
    held = load_text(counted, lambda text: [ord(letter) for letter in text], length=10, val_share=0.4)
    assert held.test is None
    whole = [ord(letter) for letter in "\n".join(numbers)]  # 289 of them, of which the last 116 are held out
    assert held.train.tokens.flatten().tolist() == whole[:170]
    assert held.val.tokens.flatten().tolist() == whole[173:283]
    assert held.vocabulary == ord("9") + 1


def test_a_folder_of_text(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("one\ntwo\n" * 40)
    (tmp_path / "test.txt").write_text("three\n" * 40)
    text = load_text(tmp_path, length=16)
    assert text.test is not None
    assert bytes(text.test.tokens[0].tolist()).startswith(b"three\nthree")


ODD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no file": ("nowhere.txt", {}, "not a folder or Hub name"),
    "nothing": (None, {}, "expected a file, a folder or a name on the Hub, got None"),
    "no name": (" ", {}, "expected a file, a folder or a name on the Hub, got ' '"),
    "a long name": ("x" * 500, {}, "it is no name of a file"),
    "the home of nobody": ("~nobody-at-all/novel.txt", {}, "it is no name of a file"),
    "too short": ("novel", {"length": 600}, "expected 600 tokens or more"),
    "no length": ("novel", {"length": 1}, "length as a whole number from 2"),
    "no shares": ("novel", {"val_share": 0.6, "test_share": 0.4}, "together below 1"),
    "no val": ("novel", {"val_share": 0.0}, "val_share above 0"),
    "no tokenizer": ("novel", {"tokenizer": 3}, "expected a tokenizer, or a function"),
    "halves": ("novel", {"tokenizer": lambda text: [0.5] * len(text)}, "whole numbers from 0 from the tokenizer"),
    "a failing one": ("novel", {"tokenizer": lambda text: {}["x"]}, "the tokenizer failed"),
    "no column": ({"train": datasets.Dataset.from_dict({"body": ["a"]})}, {}, "expected a column 'text', got body"),
    "no train": ({"test": datasets.Dataset.from_dict({"text": ["a"]})}, {}, "expected a split named 'train'"),
}


@pytest.mark.parametrize("kind", ODD)
def test_texts_that_are_none(kind: str, novel: Path) -> None:
    source, fields, words = ODD[kind]
    with pytest.raises(DataError, match=words) as caught:
        load_text(novel if source == "novel" else source, **fields)
    assert "\n" not in str(caught.value)


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe" * 1000)
    with pytest.raises(DataError, match="expected a text in UTF-8"):
        load_text(tmp_path / "binary.txt")


def test_it_is_what_language_modelling_takes(novel: Path) -> None:
    text = load_text(novel, length=20)
    task = mp.LanguageModelling(text.train, text.val, text.test)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(text.vocabulary, 8), torch.nn.Linear(8, text.vocabulary))
    recipe = mp.Recipe(epochs=10, lr=0.05, optimizer="adamw", precision="32-true", device="cpu")
    rows = mp.fit(model, task, recipe, progress=False).rows
    assert rows[-1].metric < 2 < 50 < rows[0].metric
