"""Whole methods beside bare loops of the same arithmetic, one module a family."""
