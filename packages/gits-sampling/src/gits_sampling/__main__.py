"""``python -m gits_sampling fit|validate|test|predict``: Lightning's own command line."""

from __future__ import annotations


def main() -> None:
    """Run LightningCLI on GITSModule and ImageData."""
    from lightning.pytorch.cli import LightningCLI

    from gits_sampling.data import ImageData
    from gits_sampling.lightning import GITSModule

    LightningCLI(
        GITSModule,
        ImageData,
        trainer_defaults={"use_distributed_sampler": False},
        save_config_callback=None,
    )


if __name__ == "__main__":
    main()
