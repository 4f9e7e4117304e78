"""One paper each: model, buffers and plugins with the paper's defaults."""

from avalanche_ext.strategies.ar1_star import AR1Star
from avalanche_ext.strategies.bdr import BDR
from avalanche_ext.strategies.ewc_fr_replay import EWCFRReplay
from avalanche_ext.strategies.lucir import LUCIR
from avalanche_ext.strategies.mnemonics import Mnemonics
from avalanche_ext.strategies.rerelrp import ReReLRP

__all__ = ["BDR", "LUCIR", "AR1Star", "EWCFRReplay", "Mnemonics", "ReReLRP"]
