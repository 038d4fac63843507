"""Measures that torchmetrics lacks."""
