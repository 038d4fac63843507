"""Text-to-image models small enough to train in minutes; diffusers is not needed here."""
