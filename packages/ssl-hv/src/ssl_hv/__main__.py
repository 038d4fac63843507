"""``python -m ssl_hv fit|validate|test|predict``: Lightning's own command line."""

from __future__ import annotations


def main() -> None:
    """Run LightningCLI on VerifierModule and WordData."""
    from lightning.pytorch.cli import LightningCLI

    from ssl_hv.data import WordData
    from ssl_hv.supervised import VerifierModule

    LightningCLI(
        VerifierModule,
        WordData,
        trainer_defaults={"use_distributed_sampler": False},
        save_config_callback=None,
    )


if __name__ == "__main__":
    main()
