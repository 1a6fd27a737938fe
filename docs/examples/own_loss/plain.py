"""A loss of one's own on heatmaps, in plain PyTorch.

python docs/examples/own_loss/plain.py --images 512 --epochs 4
"""

import torch
from outside import Step, digits, network, options, report
from torch.utils.data import DataLoader


def main() -> None:
    """Train, and say what became of loss and heatmaps."""
    asked = options()
    data = digits(asked.images)
    step = Step(network())
    report(step, data)
    optimizer = torch.optim.AdamW(step.parameters(), lr=3e-3)
    step.train()
    for _ in range(asked.epochs):
        for images, labels, masks in DataLoader(data, batch_size=32):
            loss = step(images, labels, masks)["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    report(step, data)


if __name__ == "__main__":
    main()
