"""Handcrafted features of handwritten words; needs the extra ``papercommons[handwriting]``."""
