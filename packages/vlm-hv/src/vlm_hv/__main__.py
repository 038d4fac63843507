"""``python -m vlm_hv fit|validate|test|predict``: Lightning's own command line."""

from __future__ import annotations


def main() -> None:
    """Run LightningCLI on VLMHVModule and PairData, whose prompts are the module's."""
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

    from vlm_hv.data import PairData
    from vlm_hv.lightning import VLMHVModule

    class PairCLI(LightningCLI):
        """Gives the data the prompt of the model."""

        def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            parser.link_arguments(
                "model",
                "data.prompt",
                compute_fn=lambda module: module.verifier.prompt,
                apply_on="instantiate",
            )

    PairCLI(
        VLMHVModule,
        PairData,
        trainer_defaults={"use_distributed_sampler": False},
        save_config_callback=None,
    )


if __name__ == "__main__":
    main()
