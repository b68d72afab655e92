"""PyTorch's side of a comparison, as fast as we know how to make it on a CPU, and the same work as ours.

A training step is forward, mean cross-entropy, backward, the recipe's inner optimizer, Lookahead, and the sums of loss
and hits that a log needs (for language models of the loss alone: torch has no cheap way to count hits). Images are
channels_last; optimizers fused where torch has that, else foreach; Lookahead is two foreach calls every k-th step;
gradients are dropped, not zeroed; nothing waits for a number within a round. Compiled: model and loss in one
`torch.compile`, the optimizer too where asked. Evaluation is in inference mode.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.rows import Row
from tests.train.models import torch_models
from train.config import OptimizerConfig


class Lookahead:
    """Lookahead around a torch optimizer; slow weights start at the parameters."""

    def __init__(self, optimizer: torch.optim.Optimizer, sync_period: int, slow_step_size: float):
        self._optimizer, self._period, self._step_size = optimizer, sync_period, slow_step_size
        self._params = [param for group in optimizer.param_groups for param in group["params"]]
        self._slow = [param.detach().clone() for param in self._params]
        self._count = 0

    @torch.no_grad()
    def step(self) -> None:
        self._optimizer.step()
        self._count += 1
        if self._count % self._period == 0:
            torch._foreach_lerp_(self._slow, self._params, self._step_size)  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_copy_(self._params, self._slow)  # pyright: ignore[reportPrivateImportUsage]

    def zero_grad(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)


def make_optimizer(params: Any, config: OptimizerConfig, *, foreach: bool = False) -> Any:
    """The recipe's optimizer; SGD and Adam fused unless `foreach`, RAdam has only that."""
    implementation: dict[str, Any] = {"foreach": True} if foreach else {"fused": True}
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    match config.name:
        case "sgd":
            momentum: dict[str, Any] = {"momentum": config.momentum, "nesterov": config.nesterov}
            optimizer = torch.optim.SGD(params, **shared, **momentum, **implementation)
        case "adam":
            optimizer = torch.optim.Adam(params, **shared, **implementation)
        case _:
            optimizer = torch.optim.RAdam(params, **shared, decoupled_weight_decay=True, foreach=True)
    if not config.lookahead:
        return optimizer
    return Lookahead(optimizer, config.sync_period, config.slow_step_size)


class LanguageModel(torch_models.GRULanguageModel):
    """The report's GRU with its dropouts; logits one row a token, which is the layout cross-entropy is fast on."""

    def __init__(self, vocabulary: int, size: int, dropout: float):
        super().__init__(vocabulary, size)
        self.drop = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.gru(self.drop(self.embedding(tokens)))[0]
        return self.fc(self.drop(hidden)).flatten(0, 1)


def make_model(row: Row) -> nn.Module:
    config = row.config.model
    match config.name:
        case "resnet18":
            return torch_models.ResNet18(row.classes, config.stem)
        case "cnn":
            return torch_models.CNN(row.classes, last_map=cnn_last_map(row.image_size))
        case _:
            return LanguageModel(row.classes, config.hidden_size, config.dropout)


def cnn_last_map(size: int) -> int:
    """Height of the CNN's last map: 10 for images of 224."""
    for kernel, stride in ((7, 2), (2, 2), (5, 2), (7, 2)):
        size = (size - kernel) // stride + 1
    return size


def batches(row: Row, channels_last: bool, device: str = "cpu") -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The row's data in batches on the device: of training, or the test set of an evaluation."""
    dataset, size = row.dataset(), row.config.batch_size
    split = dataset.test if row.kind == "evaluate" else dataset.train
    inputs, targets = torch.from_numpy(split.inputs), torch.from_numpy(split.targets).long()
    if row.image_size:
        # Channels last in memory, NCHW in shape.
        inputs = inputs.permute(0, 3, 1, 2)
        inputs = inputs if channels_last else inputs.contiguous()
    else:
        inputs = inputs.long()
    inputs, targets = inputs.to(device), targets.to(device)
    return [(inputs[i : i + size], targets[i : i + size].flatten()) for i in range(0, len(inputs), size)]


def side(row: Row, how: frozenset[str]) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A round of the row, and what is to be said of it.

    Args:
      row: what to do.
      how: "compiled" for model and loss by torch.compile, "autotuned" in its mode max-autotune as well,
        "rnn" lets it trace into nn.GRU, "compiledoptimizer" compiles the optimizer's step too, "foreach" instead
        of fused optimizers, "contiguous" instead of channels_last, "cuda" on the GPU if there is one, with the
        TF32 products that JAX uses there by default.
    """
    torch.manual_seed(0)
    # XLA flushes denormal numbers too; they cost torch time that no one would leave in a real run.
    torch.set_flush_denormal(True)
    channels_last = bool(row.image_size) and "contiguous" not in how
    device = "cuda" if "cuda" in how and torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    model = make_model(row).to(device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    data = batches(row, channels_last, device)
    count_hits = bool(row.image_size)

    def score(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(inputs)
        hits = (logits.detach().argmax(1) == targets).sum() if count_hits else targets.new_zeros(())
        return functional.cross_entropy(logits, targets), hits

    if "compiled" in how:
        torch._dynamo.config.allow_rnn = "rnn" in how  # pyright: ignore
        score = torch.compile(score, mode="max-autotune" if "autotuned" in how else None)
    run = evaluation(model, score, data) if row.kind == "evaluate" else training(model, score, data, row, how)
    return run, {"threads": torch.get_num_threads()}


def evaluation(model: nn.Module, score: Callable[..., Any], data: list[Any]) -> Callable[[], Any]:
    """A pass over all of `data`."""
    model.eval()

    @torch.inference_mode()
    def run() -> tuple[float, int]:
        loss, hits = torch.zeros(()), torch.zeros((), dtype=torch.long)
        for inputs, targets in data:
            batch_loss, batch_hits = score(inputs, targets)
            loss += batch_loss * len(targets)
            hits += batch_hits
        return loss.item(), int(hits.item())

    return run


def training(
    model: nn.Module, score: Callable[..., Any], data: list[Any], row: Row, how: frozenset[str]
) -> Callable[[], Any]:
    """`row.steps` training steps over `data`, on and on."""
    model.train()
    optimizer = make_optimizer(model.parameters(), row.config.optimizer, foreach="foreach" in how)
    update = optimizer.step
    if "compiledoptimizer" in how:
        # Every k-th step has another graph, so Lookahead's part stays outside.
        inner = getattr(optimizer, "_optimizer", optimizer)
        inner.step = torch.compile(inner.step)
    taken = 0

    def run() -> float:
        nonlocal taken
        device = data[0][0].device
        loss, hits = torch.zeros((), device=device), torch.zeros((), dtype=torch.long, device=device)
        for _ in range(row.steps):
            inputs, targets = data[taken % len(data)]
            batch_loss, batch_hits = score(inputs, targets)
            optimizer.zero_grad()
            batch_loss.backward()
            update()
            loss += batch_loss.detach() * len(targets)
            hits += batch_hits
            taken += 1
        return loss.item()

    return run
