"""Vectors to towers to loss: the model, its optimizers, the loop, evaluation and checkpoints."""
