"""A second course: a small convolutional network, data sets and loaders, saving and loading, evaluation."""

import io

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split


class Stripes(Dataset):
    """Pictures of stripes, upright or lying."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = torch.zeros(1, 8, 8)
        if index % 2:
            picture[0, index % 8] = 1
        else:
            picture[0, :, index % 8] = 1
        return picture, index % 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.classify = nn.Linear(36, 2)

    def forward(self, x):
        return self.classify(torch.flatten(self.features(x), 1))


torch.manual_seed(1)
train, test = random_split(Stripes(), [16, 8], generator=torch.Generator().manual_seed(2))
model = Net()
print(model, sum(p.numel() for p in model.parameters()), [isinstance(m, _BatchNorm) for m in model.features])
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
for epoch in range(3):
    model.train()
    for pictures, kinds in DataLoader(train, batch_size=4, shuffle=False):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(pictures), kinds)
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch} loss {loss.item():.3f}")

kept = io.BytesIO()
torch.save(model.state_dict(), kept)
kept.seek(0)
again = Net()
again.load_state_dict(torch.load(kept))
again.eval()
with torch.no_grad():
    pictures, kinds = next(iter(DataLoader(test, batch_size=8)))
    print((again(pictures).argmax(1) == kinds).float().mean().item())
print(TensorDataset(torch.arange(3), torch.eye(3))[1])
