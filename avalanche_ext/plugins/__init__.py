"""One behaviour each, for any Avalanche strategy."""

from avalanche_ext.plugins.balanced_finetuning import BalancedFinetuningPlugin
from avalanche_ext.plugins.bdr import BDRPlugin
from avalanche_ext.plugins.cwd import CwDPlugin
from avalanche_ext.plugins.cwr_star import CWRStarPlugin
from avalanche_ext.plugins.ewc import LeftOutEWCPlugin
from avalanche_ext.plugins.exemplar_replay import ExemplarReplayPlugin
from avalanche_ext.plugins.functional_prior import FunctionalPriorPlugin
from avalanche_ext.plugins.imprinting import ImprintingPlugin
from avalanche_ext.plugins.latent_replay import LatentReplayPlugin
from avalanche_ext.plugins.lucir import LUCIRPlugin
from avalanche_ext.plugins.memory_resident import MemoryResidentPlugin
from avalanche_ext.plugins.mirror_test import MirrorTestPlugin
from avalanche_ext.plugins.nearest_exemplar_mean import NearestExemplarMeanPlugin
from avalanche_ext.plugins.relevance_freezing import RelevanceFreezingPlugin
from avalanche_ext.plugins.score_distillation import ScoreDistillationPlugin
from avalanche_ext.plugins.synaptic_intelligence import SynapticIntelligencePlugin
from avalanche_ext.plugins.task_recognition import TaskRecognitionPlugin
from avalanche_ext.plugins.weight_transfer import WeightTransferPlugin

__all__ = [
    "BDRPlugin",
    "BalancedFinetuningPlugin",
    "CWRStarPlugin",
    "CwDPlugin",
    "ExemplarReplayPlugin",
    "FunctionalPriorPlugin",
    "ImprintingPlugin",
    "LUCIRPlugin",
    "LatentReplayPlugin",
    "LeftOutEWCPlugin",
    "MemoryResidentPlugin",
    "MirrorTestPlugin",
    "NearestExemplarMeanPlugin",
    "RelevanceFreezingPlugin",
    "ScoreDistillationPlugin",
    "SynapticIntelligencePlugin",
    "TaskRecognitionPlugin",
    "WeightTransferPlugin",
]
