"""Trains Progressive Layered Extraction (PLE) models from .gin files."""
