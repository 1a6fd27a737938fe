"""A loss of one's own on heatmaps, with Accelerate; `accelerate launch` runs it on several GPUs.

python docs/examples/own_loss/accelerated.py --images 512 --epochs 4
"""

import torch
from accelerate import Accelerator
from outside import Step, digits, network, options, report
from torch.utils.data import DataLoader


def main() -> None:
    """Train, and say what became of loss and heatmaps."""
    asked = options()
    data = digits(asked.images)
    step = Step(network())
    report(step, data)
    accelerator = Accelerator()
    wrapped, optimizer, loader = accelerator.prepare(
        step, torch.optim.AdamW(step.parameters(), lr=3e-3), DataLoader(data, batch_size=32)
    )
    wrapped.train()
    for _ in range(asked.epochs):
        for images, labels, masks in loader:
            loss = wrapped(images, labels, masks)["loss"]
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
    if accelerator.is_main_process:
        report(accelerator.unwrap_model(wrapped), data)


if __name__ == "__main__":
    main()
