"""Sphinx: ``sphinx-build -W --keep-going docs build/docs``; needs no network, nor do the pages."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import bigdelimiters, tex2mathml
from sphinx.application import Sphinx

from avalanche_ext import __version__

project = "avalanche_ext"
author = "the authors of avalanche_ext"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# Docstrings name objects of the package in single backticks.
default_role = "py:obj"
add_module_names = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

napoleon_use_ivar = True

html_theme = "furo"
html_title = f"avalanche_ext {__version__}"
html_math_renderer = "mathml"
html_copy_source = False
bigdelimiters.update({"big": 1, "Big": 2})  # docutils has bigl and bigr only


def plain(formula: str) -> str:
    """Formula in the part of LaTeX that docutils turns into MathML."""
    # not an accent alone, lest docutils put an index below it
    accent = r"\\(bar|hat|tilde) ?(\\[a-zA-Z]+|\w|\{[^{}]*\})"
    formula = re.sub(accent, r"{\\\1{\2}{}}", formula)
    formula = re.sub(r"\\t?frac(\d)(\d)", r"\\frac{\1}{\2}", formula)
    return formula.replace(r"\tfrac", r"\frac").replace(r"\textstyle", "")


def visit_inline(self: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(tex2mathml(plain(node.astext())))
    raise nodes.SkipNode


def visit_block(self: Any, node: nodes.math_block) -> None:
    """Write a formula that stands by itself; a wide one scrolls."""
    formula = tex2mathml(plain(node.astext()), as_block=True)
    style = "overflow: auto hidden; padding: 0.4em 0"
    self.body.append(f'<div style="{style}">{formula}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register formulas as MathML, which browsers draw without a script from elsewhere.

    Args:
        app: Sphinx.
    """
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
