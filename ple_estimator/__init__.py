"""Trains Progressive Layered Extraction models; see README.md."""
