"""A loss of one's own on heatmaps, as a LightningModule.

python docs/examples/own_loss/lightning_module.py --images 512 --epochs 4
"""

import lightning
import torch
from outside import Step, digits, network, options, report
from torch.utils.data import DataLoader


class OutsideModule(lightning.LightningModule):
    """The step, with its optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.step = Step(network())

    def training_step(self, batch):
        """The loss of a batch; the share outside goes to the logger."""
        found = self.step(*batch)
        self.log("outside", found["outside"])
        return found["loss"]

    def configure_optimizers(self):
        """AdamW, with one rate."""
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main() -> None:
    """Train, and say what became of loss and heatmaps."""
    asked = options()
    data = digits(asked.images)
    module = OutsideModule()
    report(module.step, data)
    module.train()
    trainer = lightning.Trainer(
        max_epochs=asked.epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=32))
    if trainer.is_global_zero:
        report(module.step, data)


if __name__ == "__main__":
    main()
