"""Train a network: what for (`Task`), how (`Recipe`), and a loop that survives a kill (`fit`)."""

from metaprune.train.callbacks import Callback, Moment
from metaprune.train.checkpoint import Checkpoint, CheckpointError
from metaprune.train.engine import evaluate, fit
from metaprune.train.partners import Partner
from metaprune.train.recipe import Recipe
from metaprune.train.run import History, Projector, Row, TrainError
from metaprune.train.stepping import Training
from metaprune.train.task import Classification, Pictures, Task, TaskError
from metaprune.train.tasks.detection import Detection
from metaprune.train.tasks.distillation import distil
from metaprune.train.tasks.language import LanguageModelling
from metaprune.train.tasks.restoration import Denoising, SuperResolution
from metaprune.train.tasks.segmentation import Segmentation

__all__ = [
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "Classification",
    "Denoising",
    "Detection",
    "History",
    "LanguageModelling",
    "Moment",
    "Partner",
    "Pictures",
    "Projector",
    "Recipe",
    "Row",
    "Segmentation",
    "SuperResolution",
    "Task",
    "TaskError",
    "TrainError",
    "Training",
    "distil",
    "evaluate",
    "fit",
]
