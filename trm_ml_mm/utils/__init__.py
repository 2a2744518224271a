"""Helpers that know nothing of images, labels or models."""
