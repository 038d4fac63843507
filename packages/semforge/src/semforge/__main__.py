"""``python -m semforge fit|validate|test|predict``: Lightning's own command line."""

from __future__ import annotations


def main() -> None:
    """Run LightningCLI on SemForgeModule and FaceForgeryData."""
    from lightning.pytorch.cli import LightningCLI

    from semforge.data import FaceForgeryData
    from semforge.lightning import SemForgeModule

    LightningCLI(
        SemForgeModule,
        FaceForgeryData,
        trainer_defaults={"use_distributed_sampler": False},
        save_config_callback=None,
    )


if __name__ == "__main__":
    main()
