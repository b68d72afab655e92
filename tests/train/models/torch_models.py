"""The same models in PyTorch, written from their descriptions, with the names of ours; and the copying of weights."""

import numpy as np
import torch
from torch import nn


def _conv(inputs, outputs, size, stride=1, padding=0, bias=False):
    return nn.Conv2d(inputs, outputs, size, stride, padding, bias=bias)


class BasicBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = _conv(outputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs)
        self.shortcut = stride != 1 or inputs != outputs
        if self.shortcut:
            self.downsample_conv, self.downsample_norm = _conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.shortcut:
            x = self.downsample_norm(self.downsample_conv(x))
        return torch.relu(x + y)


class ResNet18(nn.Module):
    def __init__(self, classes, stem):
        super().__init__()
        self.stem_conv = _conv(3, 64, 7, 2, 3) if stem == "imagenet" else _conv(3, 64, 3, 1, 1)
        self.stem_norm = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        self.blocks = []
        inputs = 64
        for stage, outputs in enumerate((64, 128, 256, 512), start=1):
            for block in (1, 2):
                module = BasicBlock(inputs, outputs, 2 if stage > 1 and block == 1 else 1)
                self.add_module(f"stage{stage}_block{block}", module)
                self.blocks.append(f"stage{stage}_block{block}")
                inputs = outputs
        self.fc = nn.Linear(512, classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.stem_norm(self.stem_conv(x))))
        for block in self.blocks:
            x = getattr(self, block)(x)
        return self.fc(x.mean((2, 3)))


class CNN(nn.Module):
    def __init__(self, classes, last_map):
        super().__init__()
        self.conv1, self.norm1 = _conv(3, 96, 7, 2, bias=True), nn.BatchNorm2d(96)
        self.conv2, self.norm2 = _conv(96, 128, 5, 2, bias=True), nn.BatchNorm2d(128)
        self.conv3, self.norm3 = _conv(128, 256, 7, 2, bias=True), nn.BatchNorm2d(256)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(256 * last_map * last_map, classes)

    def forward(self, x):
        x = self.pool(self.norm1(torch.relu(self.conv1(x))))
        x = self.norm2(torch.relu(self.conv2(x)))
        x = self.norm3(torch.relu(self.conv3(x)))
        return self.fc(x.flatten(1))


class GRULanguageModel(nn.Module):
    def __init__(self, vocabulary, size):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size)
        self.gru = nn.GRU(size, size, num_layers=2, batch_first=True)
        self.fc = nn.Linear(size, vocabulary)

    def forward(self, tokens):
        return self.fc(self.gru(self.embedding(tokens))[0]).transpose(1, 2)


class BiLSTMClassifier(nn.Module):
    def __init__(self, vocabulary, embedding_size, hidden_size, classes):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        self.lstm = nn.LSTM(embedding_size, hidden_size, num_layers=2, bidirectional=True, batch_first=True)
        self.position_fc = nn.Linear(2 * hidden_size, hidden_size)
        self.fc = nn.Linear(hidden_size, classes)

    def forward(self, tokens):
        x = torch.relu(self.position_fc(self.lstm(self.embedding(tokens))[0]))
        return self.fc(x.mean(dim=1))


LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
RECURRENT = {
    "input_kernel": "weight_ih",
    "recurrent_kernel": "weight_hh",
    "input_bias": "bias_ih",
    "recurrent_bias": "bias_hh",
}


def torch_name(name: str) -> str:
    """The torch parameter or buffer that corresponds to one of ours."""
    if name == "embedding":
        return "embedding.weight"
    module, leaf = name.rsplit(".", 1)
    if leaf in RECURRENT:  # gru1.input_kernel, lstm2_backward.recurrent_bias
        kind, layer = module.split("_")[0][:-1], int(module.split("_")[0][-1]) - 1
        return f"{kind}.{RECURRENT[leaf]}_l{layer}{'_reverse' if module.endswith('backward') else ''}"
    return f"{module}.{LEAVES[leaf]}"


def torch_layout(name: str, array: np.ndarray, last_map: int = 1) -> np.ndarray:
    """Our array in torch's layout; a linear map, so it serves for gradients too.

    HWIO to OIHW, [in, out] to [out, in]; the CNN's last layer reads (height, width, channel), torch's reads (channel,
    height, width).
    """
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if name == "fc.kernel" and last_map > 1:
        return array.reshape(last_map, last_map, -1, array.shape[1]).transpose(3, 2, 0, 1).reshape(array.shape[1], -1)
    return array.T if array.ndim == 2 and name != "embedding" else array
