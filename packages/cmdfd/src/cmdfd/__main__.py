"""``python -m cmdfd fit|validate|test|predict``: Lightning's own command line."""

from __future__ import annotations


def main() -> None:
    """Run LightningCLI on CMDFDModule and PreparedData."""
    from lightning.pytorch.cli import LightningCLI

    from cmdfd.lightning import CMDFDModule
    from cmdfd.prepared_data import PreparedData

    LightningCLI(
        CMDFDModule,
        PreparedData,
        trainer_defaults={"use_distributed_sampler": False},
        save_config_callback=None,
    )


if __name__ == "__main__":
    main()
