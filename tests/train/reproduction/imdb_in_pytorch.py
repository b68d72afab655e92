"""The report's recipe for IMDB in PyTorch, written anew: does RAdam train there as it does here?

    python tests/train/reproduction/imdb_in_pytorch.py DATA_DIR [SEED] [EPOCHS]

Shares with this project only the reviews as word ids. Prints training loss and test accuracy after each epoch;
results/fidelity/trials/imdb.csv has those of seed 0 (two epochs: 20 minutes on a core).
"""

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[3]))

from train.data.imdb import load_imdb


class Network(nn.Module):
    """Embedding, two bidirectional LSTM layers, a layer of ReLUs at each position, their mean, two classes."""

    def __init__(self):
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(10_000, 128), nn.Dropout(0.2)
        self.lstm = nn.LSTM(128, 128, num_layers=2, bidirectional=True, batch_first=True)
        self.position_fc, self.fc = nn.Linear(256, 128), nn.Linear(128, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.dropout(self.embedding(tokens)))
        return self.fc(torch.relu(self.position_fc(self.dropout(hidden))).mean(1))


def main(data_dir: str, seed: int = 0, epochs: int = 2) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    dataset = load_imdb(data_dir, sequence_length=200)
    splits = [
        (torch.from_numpy(s.inputs).long(), torch.from_numpy(s.targets).long()) for s in (dataset.train, dataset.test)
    ]
    (inputs, targets), (test_inputs, test_targets) = splits
    network = Network()
    optimizer = torch.optim.RAdam(network.parameters(), lr=1e-3)
    for epoch in range(1, epochs + 1):
        network.train()
        total = 0.0
        for index in torch.randperm(len(inputs)).split(256):
            loss = nn.functional.cross_entropy(network(inputs[index]), targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
        network.eval()
        with torch.no_grad():
            found = torch.cat([network(part).argmax(1) for part in test_inputs.split(250)])
        accuracy = (found == test_targets).double().mean().item()
        print(f"epoch {epoch}: training loss {total / len(inputs):.4f}, test accuracy {accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
