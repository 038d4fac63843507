"""``python -m rld_distill fit|validate|test|predict``: Lightning's own command line."""

from __future__ import annotations


def main() -> None:
    """Run LightningCLI on RLDModule and DistillData."""
    from lightning.pytorch.cli import LightningCLI

    from rld_distill.data import DistillData
    from rld_distill.lightning import RLDModule

    LightningCLI(
        RLDModule,
        DistillData,
        trainer_defaults={"use_distributed_sampler": False},
        save_config_callback=None,
    )


if __name__ == "__main__":
    main()
