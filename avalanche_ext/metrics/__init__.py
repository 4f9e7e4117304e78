"""Metrics of the papers that Avalanche lacks, for its `EvaluationPlugin`."""

from avalanche_ext.metrics.accuracy import (
    AverageIncrementalAccuracy,
    SeenClassesAccuracy,
)
from avalanche_ext.metrics.capacity import UnitCapacity
from avalanche_ext.metrics.gpu_memory import PeakGPUMemory
from avalanche_ext.metrics.gradient_reconstruction import GradientReconstructionError
from avalanche_ext.metrics.memory import MemoryBytes
from avalanche_ext.metrics.nearest_exemplar_mean import NearestExemplarMeanAccuracy
from avalanche_ext.metrics.task_recognition import TaskRecognitionAccuracy

__all__ = [
    "AverageIncrementalAccuracy",
    "GradientReconstructionError",
    "MemoryBytes",
    "NearestExemplarMeanAccuracy",
    "PeakGPUMemory",
    "SeenClassesAccuracy",
    "TaskRecognitionAccuracy",
    "UnitCapacity",
]
