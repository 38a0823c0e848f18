"""Weights of other libraries, a file a family: their names brought to timm's, their tables to the model's size."""
