"""Data to train on: images by a name or a folder, folders of images to restore, characters, text."""

from metaprune.data.batches import Batches
from metaprune.data.characters import Characters, load_characters
from metaprune.data.images import Images, load_images, load_test_images
from metaprune.data.load import Data, DataError, load
from metaprune.data.pairs import Patches, Whole
from metaprune.data.text import Text, Tokens, load_text
from metaprune.data.translations import Translations, load_pairs

__all__ = [
    "Batches",
    "Characters",
    "Data",
    "DataError",
    "Images",
    "Patches",
    "Text",
    "Tokens",
    "Translations",
    "Whole",
    "load",
    "load_characters",
    "load_images",
    "load_pairs",
    "load_test_images",
    "load_text",
]
