"""Training steps and inference on threads."""
