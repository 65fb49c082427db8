"""Make the small files that real PyTorch writes, for tests where it is not installed: python tests/data/make_weights.py.

    state.pt        a state dictionary with tied weights, a transposed view, and a zip member for each storage
    checkpoint.pt   what training scripts save: model, optimizer, numbers
    sparse.pt       sparse tensors, by coordinates and by rows
    module.pt       a whole module, pickled by reference to its classes
    scripted.pt     TorchScript
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

FOLDER = Path(__file__).parent / "weights"


def main() -> None:
    """Write them."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2).to(torch.bfloat16))
    state = {f"body.{name}": tensor for name, tensor in net.state_dict().items()}
    state["tied.weight"] = state["body.0.weight"]
    state["turned"] = torch.arange(6, dtype=torch.int16).reshape(2, 3).T
    state["part"] = torch.arange(10, dtype=torch.float64)[4:7]
    state["wide"] = torch.zeros(3, dtype=torch.uint16)
    torch.save(state, FOLDER / "state.pt")
    small = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(small.parameters(), lr=0.01)
    small(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    checkpoint = {"model": small.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7, "note": "half way"}
    torch.save(checkpoint, FOLDER / "checkpoint.pt")
    torch.save(nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Linear(3, 1))), FOLDER / "module.pt")
    torch.save({"coo": torch.eye(3).to_sparse(), "csr": torch.eye(3).to_sparse_csr()}, FOLDER / "sparse.pt")
    torch.jit.script(nn.Sequential(nn.Linear(4, 3), nn.ReLU())).save(str(FOLDER / "scripted.pt"))


if __name__ == "__main__":
    main()
