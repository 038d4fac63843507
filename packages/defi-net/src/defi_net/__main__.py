"""``python -m defi_net fit|validate|test|predict``: Lightning's own command line."""

from __future__ import annotations


def main() -> None:
    """Run LightningCLI on DeFINetModule and InpaintingData."""
    from lightning.pytorch.cli import LightningCLI

    from defi_net.data import InpaintingData
    from defi_net.lightning import CLAMP, DeFINetModule

    LightningCLI(
        DeFINetModule,
        InpaintingData,
        trainer_defaults={"use_distributed_sampler": False, **CLAMP},
        save_config_callback=None,
    )


if __name__ == "__main__":
    main()
