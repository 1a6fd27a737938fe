"""A loss of one's own on heatmaps, in transformers' Trainer, which asks a model for its loss.

python docs/examples/own_loss/hugging_face_trainer.py --images 512 --epochs 4
"""

import tempfile

import torch
from outside import Step, digits, network, options, report
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments


class ByName(Dataset):
    """Samples as the Trainer hands them on: the arguments of the model's forward, by name."""

    def __init__(self, data) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index):
        images, labels, masks = self.data[index]
        return {"images": images, "labels": labels, "masks": masks}


def main() -> None:
    """Train, and say what became of loss and heatmaps."""
    asked = options()
    data = digits(asked.images)
    step = Step(network())
    report(step, data)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=asked.epochs,
            per_device_train_batch_size=32,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
        )
        optimizer = torch.optim.AdamW(step.parameters(), lr=3e-3)
        trainer = Trainer(step, arguments, train_dataset=ByName(data), optimizers=(optimizer, None))
        trainer.train()
        report(step, data)


if __name__ == "__main__":
    main()
