"""Pictures of what methods did, by matplotlib."""

from avalanche_ext.figures.relevance import capacity_figure, heatmap_figure

__all__ = ["capacity_figure", "heatmap_figure"]
