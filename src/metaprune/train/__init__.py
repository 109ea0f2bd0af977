"""Train a network: what for (`Task`), how (`Recipe`), and a loop that survives a kill (`fit`)."""

from metaprune.train.checkpoint import Checkpoint, CheckpointError
from metaprune.train.engine import Recipe, evaluate, fit
from metaprune.train.run import History, Row, TrainError
from metaprune.train.task import Classification, Task, TaskError, distil

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Classification",
    "History",
    "Recipe",
    "Row",
    "Task",
    "TaskError",
    "TrainError",
    "distil",
    "evaluate",
    "fit",
]
