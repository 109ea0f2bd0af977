"""Images to train on: embedded digits, a folder, or a name on the Hugging Face Hub."""

from metaprune.data.batches import Batches
from metaprune.data.load import Data, DataError, load

__all__ = ["Batches", "Data", "DataError", "load"]
