"""``python -m nlran fit|validate|test|predict``: Lightning's own command line."""

from __future__ import annotations


def main() -> None:
    """Run LightningCLI on NLRANModule and CTData."""
    from lightning.pytorch.cli import LightningCLI

    from nlran.data import CTData
    from nlran.lightning import NLRANModule

    LightningCLI(
        NLRANModule,
        CTData,
        trainer_defaults={"use_distributed_sampler": False},
        save_config_callback=None,
    )


if __name__ == "__main__":
    main()
