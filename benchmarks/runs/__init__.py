"""One run: its options, its loop, its record, the folder it leaves behind."""
