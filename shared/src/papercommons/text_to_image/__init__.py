"""Text-to-image models small enough to train in minutes; needs ``papercommons[diffusion]``."""
