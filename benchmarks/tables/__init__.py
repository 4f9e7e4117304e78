"""The table of results: rows, marks, and their forms."""
