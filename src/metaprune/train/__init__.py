"""Train a network: what for (`Task`), how (`Recipe`), and a loop that survives a kill (`fit`)."""

from metaprune.train.checkpoint import Checkpoint, CheckpointError
from metaprune.train.engine import Recipe, evaluate, fit
from metaprune.train.restoration import Denoising, SuperResolution
from metaprune.train.run import History, Row, TrainError
from metaprune.train.task import Classification, Pictures, Task, TaskError, distil

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Classification",
    "Denoising",
    "History",
    "Pictures",
    "Recipe",
    "Row",
    "SuperResolution",
    "Task",
    "TaskError",
    "TrainError",
    "distil",
    "evaluate",
    "fit",
]
