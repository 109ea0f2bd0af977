"""Images to train on: embedded digits, a folder, or a name on the Hugging Face Hub; and folders to restore."""

from metaprune.data.batches import Batches
from metaprune.data.characters import Characters, load_characters
from metaprune.data.images import Images, load_images, load_test_images
from metaprune.data.load import Data, DataError, load
from metaprune.data.pairs import Patches, Whole

__all__ = [
    "Batches",
    "Characters",
    "Data",
    "DataError",
    "Images",
    "Patches",
    "Whole",
    "load",
    "load_characters",
    "load_images",
    "load_test_images",
]
