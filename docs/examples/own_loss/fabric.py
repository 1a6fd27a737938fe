"""A loss of one's own on heatmaps, in Lightning Fabric; on several GPUs as it is.

python docs/examples/own_loss/fabric.py --images 512 --epochs 4
"""

import torch
from lightning.fabric import Fabric
from outside import Step, digits, network, options, report
from torch.utils.data import DataLoader


def main() -> None:
    """Train, and say what became of loss and heatmaps."""
    asked = options()
    data = digits(asked.images)
    step = Step(network())
    report(step, data)
    fabric = Fabric(accelerator="auto", devices="auto")
    fabric.launch()
    wrapped, optimizer = fabric.setup(step, torch.optim.AdamW(step.parameters(), lr=3e-3))
    loader = fabric.setup_dataloaders(DataLoader(data, batch_size=32))
    wrapped.train()
    for _ in range(asked.epochs):
        for images, labels, masks in loader:
            loss = wrapped(images, labels, masks)["loss"]
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
    if fabric.is_global_zero:
        report(step, data)


if __name__ == "__main__":
    main()
