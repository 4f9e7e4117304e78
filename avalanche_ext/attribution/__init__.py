"""Layer-wise relevance propagation; the only place that imports zennit."""

from avalanche_ext.attribution.lrp import LRP, UnitRelevance

__all__ = ["LRP", "UnitRelevance"]
