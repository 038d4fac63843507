"""The objectives of pre-training, one per file: a pure loss, then the module that uses it."""
