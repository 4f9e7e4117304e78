"""Parts of `avalanche_ext.checkpoint`: from a strategy to plain data, and back.

``encode`` writes the graph of objects below a strategy as a flat table, ``decode``
puts such a table into a freshly constructed strategy. ``kinds`` says what may be in a
table, ``samples`` refers to data of the stream instead of copying it, ``insertion``
keeps the order of sets, ``rng`` the random generators, and ``files`` does the disk.
"""
