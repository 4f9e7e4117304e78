"""Pictures of what methods did, by matplotlib."""

from avalanche_ext.figures.exemplar_curves import margin_histogram, optimization_curves
from avalanche_ext.figures.exemplar_embedding import exemplar_embedding
from avalanche_ext.figures.exemplars import exemplar_grid
from avalanche_ext.figures.relevance import capacity_figure, heatmap_figure

__all__ = [
    "capacity_figure",
    "exemplar_embedding",
    "exemplar_grid",
    "heatmap_figure",
    "margin_histogram",
    "optimization_curves",
]
