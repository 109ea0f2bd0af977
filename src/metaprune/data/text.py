"""Text to learn the next token of: a file, or a data set of Hugging Face's, as sequences of tokens of one length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from metaprune.data.load import splits_of, whole
from metaprune.data.pictures import DataError, named
from metaprune.graph.arguments import brief, is_number

__all__ = ["Text", "Tokens", "load_text"]

Tokenizer = Callable[[str], Sequence[int]]
"""Text -> whole numbers."""

BYTES = 256
"""The vocabulary where every byte of the text is a token."""

MOST = 1 << 30
"""Characters of a text that is read."""


@dataclass(frozen=True, eq=False, repr=False)
class Tokens:
    """Iterates over tokens: whole numbers (N, length), in an order drawn from torch's global random numbers."""

    tokens: Int[Tensor, " all length"]
    batch_size: int
    shuffle: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)  # how the text was read, for runs and reports

    @property
    def examples(self) -> int:
        """The number of sequences in a pass."""
        return len(self.tokens)

    def __len__(self) -> int:
        """The number of batches; the last one may be small."""
        return -(-len(self.tokens) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        """One pass over all sequences."""
        total = len(self.tokens)
        order = torch.randperm(total) if self.shuffle else torch.arange(total)
        for chosen in torch.split(order.to(self.tokens.device), self.batch_size):
            yield self.tokens[chosen]

    def near(self, device: torch.device) -> Tokens:
        """The same, with the tokens on a device."""
        return self if self.tokens.device == device else replace(self, tokens=self.tokens.to(device))


@dataclass(frozen=True)
class Text:
    """A text in three parts that share no sequence.

    Attributes:
        name: Where it is from.
        train: To learn from.
        val: Held out of it, or a part of its own; chooses.
        test: Chooses nothing.
        vocabulary: One more than the largest token: 256 of bytes, as the tokenizer says, or as it was seen.
    """

    name: str
    train: Tokens
    val: Tokens
    test: Tokens | None
    vocabulary: int

    def __repr__(self) -> str:
        """How many sequences there are of each part."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        counts = ", ".join(f"{len(part.tokens)} {name}" for name, part in parts.items() if part is not None)
        return f"Text({self.name}: {counts} sequences of {self.train.tokens.shape[1]}; {self.vocabulary} tokens)"


def load_text(
    source: str | Path | Mapping[str, Any],
    tokenizer: Tokenizer | Any = None,
    *,
    length: int = 128,
    batch_size: int = 16,
    val_share: float = 0.1,
    test_share: float = 0.1,
    column: str = "text",
) -> Text:
    """Loads text: `load_text("novel.txt")`, `load_text("Salesforce/wikitext", tokenizer)`.

    Texts are joined, made tokens, and cut into sequences of `length`; what is left over at the end is dropped.

    Args:
        source: A file of text (UTF-8); a folder or a name on the Hugging Face Hub, as for `load`; or what
            `datasets.load_dataset` gave.
        tokenizer: One of Hugging Face's, or any function from text to whole numbers; by default each byte is a token.
        length: Tokens of a sequence.
        batch_size: Sequences in a batch.
        val_share: Where there is no split called val or validation: the part that is held out to choose by, from the
            end of the training text.
        test_share: Of a file: the part after that, which is reported.
        column: Of a data set, where the text is.

    Raises:
        DataError: It cannot be found or read, or is too short.
    """
    who = f"text {brief(source) if isinstance(source, Mapping) else source}"
    for name, value, least in (("length", length, 2), ("batch_size", batch_size, 1)):
        if not whole(value, least):
            raise DataError(f"{who}: expected {name} as a whole number from {least}, got {value!r}")
    shares = (val_share, test_share)
    if not all(is_number(share) and 0 <= share < 1 for share in shares) or not 0 < val_share <= sum(shares) < 1:
        raise DataError(f"{who}: expected val_share above 0 and test_share from 0, together below 1, got {shares}")
    encode, vocabulary, called = _encoder(tokenizer, who)
    texts, name, in_one_file = _texts(source, column, who)
    streams = {part: _stream(encode, text, who) for part, text in texts.items()}
    if "val" not in streams:
        train = streams["train"]
        test = round(test_share * len(train)) if in_one_file else 0
        first = len(train) - test - max(length, round(val_share * len(train)))
        streams |= {"train": train[:first], "val": train[first : len(train) - test]}
        if test >= length:
            streams["test"] = train[len(train) - test :]
    said = {"data.tokens": called, "data.length": str(length)}

    def part(name: str) -> Tokens:
        tokens = streams[name]
        count = len(tokens) // length
        if not count:
            raise DataError(f"{who}: expected {length} tokens or more to {name}, got {len(tokens)}; ask for fewer")
        return Tokens(tokens[: count * length].reshape(count, length), batch_size, name == "train", said)

    largest = max(int(stream.max()) for stream in streams.values() if len(stream))
    test_part = part("test") if "test" in streams else None
    return Text(name, part("train"), part("val"), test_part, max(vocabulary or 0, largest + 1))


def _encoder(tokenizer: Any, who: str) -> tuple[Tokenizer, int | None, str]:
    """How text becomes tokens, how many there are as far as that is known, and what it is called."""
    if tokenizer is None:
        return lambda text: list(text.encode()), BYTES, "bytes"
    if callable(getattr(tokenizer, "encode", None)):
        known = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        size = len(tokenizer) if hasattr(tokenizer, "__len__") else None
        return lambda text: _ids(tokenizer.encode(text)), size, str(known)
    if callable(tokenizer):
        return tokenizer, None, getattr(tokenizer, "__name__", type(tokenizer).__name__)
    raise DataError(f"{who}: expected a tokenizer, or a function from text to whole numbers, got {brief(tokenizer)}")


def _ids(encoded: Any) -> Sequence[int]:
    """Of Hugging Face's tokenizers of both kinds: numbers, or an object that has them."""
    return getattr(encoded, "ids", encoded)  # type: ignore[no-any-return]


def _texts(source: Any, column: str, who: str) -> tuple[dict[str, str], str, bool]:
    """The text of each part, where it is from, and whether that is one file."""
    if not isinstance(source, Mapping):
        named(source, "text", "a file, a folder or a name on the Hub")
        try:
            path = Path(source).expanduser()
            is_file = path.is_file()
        except (OSError, RuntimeError) as error:  # longer than names can be, or in a home that is nobody's
            raise DataError(f"{who:.80}: it is no name of a file ({str(error)[:60]})") from error
        if is_file:
            return {"train": _read(path, who)}, path.name, True
        source, name = splits_of(str(source)), str(source)
    else:
        name = "user's text"
    known = {"train": "train", "validation": "val", "val": "val", "test": "test"}
    found = {known[split]: _joined(rows, column, f"{who}, {split}") for split, rows in source.items() if split in known}
    if "train" not in found:
        raise DataError(f"{who}: expected a split named 'train', got {', '.join(map(str, source)) or 'none'}")
    return found, name, False


def _joined(rows: Any, column: str, who: str) -> str:
    columns = list(getattr(rows, "column_names", None) or [])
    if column not in columns:
        raise DataError(f"{who}: expected a column {column!r}, got {', '.join(columns) or 'none'}; say which: column=")
    return "\n".join(str(text) for text in rows[column])


def _read(path: Path, who: str) -> str:
    try:
        if path.stat().st_size > MOST:
            raise DataError(f"{who}: expected up to {MOST >> 20} MiB, got {path.stat().st_size >> 20}; cut it")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{who}: expected a text in UTF-8 ({str(error)[:80]}); convert it") from error


def _stream(encode: Tokenizer, text: str, who: str) -> Int[Tensor, " all"]:
    try:
        tokens = torch.as_tensor(encode(text))
    except Exception as error:
        raise DataError(f"{who}: the tokenizer failed ({type(error).__name__}: {str(error)[:100]})") from error
    if tokens.dim() != 1 or tokens.is_floating_point() or (len(tokens) and int(tokens.min()) < 0):
        raise DataError(
            f"{who}: expected whole numbers from 0 from the tokenizer, got {tokens.dtype} {tuple(tokens.shape)}"
        )
    return tokens.long()
