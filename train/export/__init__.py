"""Trained weights out of a workdir: as a function from images or tokens to logits, or as a file."""
