"""The figures of ``timing.py``, one module a part of the package."""
