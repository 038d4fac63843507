"""``python -m d_tiil fit|validate``: Lightning's own command line.

It trains U-Net and text encoder over the autoencoder as it is; ``d-tiil-train`` trains the
autoencoder first.
"""

from __future__ import annotations


def main() -> None:
    """Run LightningCLI on DTIILModule and SceneData."""
    from lightning.pytorch.cli import LightningCLI
    from papercommons.data.scene_data import SceneData

    from d_tiil.lightning import DTIILModule

    LightningCLI(
        DTIILModule,
        SceneData,
        trainer_defaults={"use_distributed_sampler": False},
        save_config_callback=None,
    )


if __name__ == "__main__":
    main()
