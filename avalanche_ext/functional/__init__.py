"""The mathematics: tensors in, tensors out; torch only."""
