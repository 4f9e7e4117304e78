"""Parts of `avalanche_ext.loaders`: from a dataset of items to tensors in memory.

``walk`` finds where each sample comes from, ``items`` holds the raw images,
``batch_transforms`` turns per-image transforms into operations on a batch, and
``content`` puts the three together.
"""
