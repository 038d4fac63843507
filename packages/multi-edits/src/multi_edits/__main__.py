"""``python -m multi_edits fit|validate``: Lightning's own command line.

It trains U-Net and text encoder over the autoencoder as it is; ``multi-edits-train`` trains the
autoencoder first.
"""

from __future__ import annotations


def main() -> None:
    """Run LightningCLI on MultiEditsModule and SceneData."""
    from lightning.pytorch.cli import LightningCLI
    from papercommons.data.scene_data import SceneData

    from multi_edits.lightning import MultiEditsModule

    LightningCLI(
        MultiEditsModule,
        SceneData,
        trainer_defaults={"use_distributed_sampler": False},
        save_config_callback=None,
    )


if __name__ == "__main__":
    main()
