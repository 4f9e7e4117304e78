"""Orders of classes that papers have published.

Importing this module loads neither torch nor Avalanche.
"""

from __future__ import annotations

from collections.abc import Sequence

_TINY_IMAGENET = """
32 139 171 142 187 2 68 195 193 131 127 28 98 44 35 145 191 47 168 126 125 118 0 192
109 198 92 53 179 122 151 85 56 15 196 22 152 46 63 27 181 21 45 9 58 135 188 149 41
137 73 42 103 178 141 1 197 55 128 105 194 113 163 59 121 67 30 11 12 81 87 160 76
52 60 164 36 120 26 165 84 123 150 106 83 97 104 38 96 19 133 110 138 71 13 174 136
144 130 82 16 48 33 95 169 43 86 185 111 173 89 148 156 37 116 20 23 153 172 157 49
180 167 90 79 7 175 129 143 147 154 31 140 66 62 25 158 155 114 162 102 8 74 177 161
65 93 70 146 186 101 18 166 99 100 78 77 94 51 54 4 10 159 107 14 17 91 182 170 119
189 88 112 176 6 50 132 5 134 69 39 40 24 3 34 61 124 72 184 64 80 117 190 108 29
199 115 75 183 57
"""
TINY_IMAGENET_BY_FOLDER = tuple(map(int, _TINY_IMAGENET.split()))
"""Of EWC+FR+Replay (Daxberger et al., TMLR 2023), from the authors' files: places in the
sorted names of the folders of Tiny-ImageNet; experience t has those from 20 t on."""


def by_folder(order: Sequence[int], names: Sequence[str]) -> list[int]:
    """Turn an order of sorted folders into one of the classes of a data set.

    Args:
        order: Places in the sorted names.
        names: Folder of each class of the data set, by its number.

    Returns:
        Numbers of classes in the same order.

    Example:
        >>> by_folder([0, 2, 1], ["n3", "n1", "n2"])
        [1, 0, 2]
    """
    ranked = sorted(range(len(names)), key=names.__getitem__)
    return [ranked[place] for place in order]
