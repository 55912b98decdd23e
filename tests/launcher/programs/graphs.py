"""Two networks on graphs: one that sorts nodes into classes, one that recommends items to users."""

import math
import warnings

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.nn.modules.module import Module
from torch.nn.parameter import Parameter

warnings.filterwarnings("ignore")  # torch warns that it does not check the indices, and of the old constructor


def normalize(mx):
    """Row-normalize a sparse matrix."""
    rowsum = np.array(mx.sum(1))
    r_inv = np.power(rowsum, -1.0).flatten()
    r_inv[np.isinf(r_inv)] = 0.0
    return sp.diags(r_inv).dot(mx)


def sparse_mx_to_torch_sparse_tensor(sparse_mx):
    """A scipy sparse matrix as a torch sparse tensor."""
    sparse_mx = sparse_mx.tocoo().astype(np.float32)
    indices = torch.from_numpy(np.vstack((sparse_mx.row, sparse_mx.col)).astype(np.int64))
    values = torch.from_numpy(sparse_mx.data)
    shape = torch.Size(sparse_mx.shape)
    return torch.sparse.FloatTensor(indices, values, shape)


def load_data():
    random = np.random.RandomState(3)
    labels = np.arange(60) % 3
    edges = [(i, j) for i in range(60) for j in random.randint(0, 60, 6) if labels[i] == labels[j] or i % 7 == 0]
    rows, cols = np.array(edges).T
    adj = sp.coo_matrix((np.ones(len(edges)), (rows, cols)), shape=(60, 60), dtype=np.float32)
    adj = adj + adj.T.multiply(adj < adj.T) - adj.multiply(adj < adj.T)
    features = sp.csr_matrix(random.rand(60, 16) > 0.7, dtype=np.float32)
    features = torch.FloatTensor(np.array(normalize(features).todense()))
    adj = sparse_mx_to_torch_sparse_tensor(normalize(adj + sp.eye(60)))
    return adj, features, torch.LongTensor(labels)


class GraphConvolution(Module):
    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(torch.FloatTensor(in_features, out_features))
        self.bias = Parameter(torch.FloatTensor(out_features)) if bias else self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self):
        stdv = 1.0 / math.sqrt(self.weight.size(1))
        self.weight.data.uniform_(-stdv, stdv)
        if self.bias is not None:
            self.bias.data.uniform_(-stdv, stdv)

    def forward(self, input, adj):
        support = torch.mm(input, self.weight)
        output = torch.spmm(adj, support)
        return output + self.bias if self.bias is not None else output

    def __repr__(self):
        return self.__class__.__name__ + " (" + str(self.in_features) + " -> " + str(self.out_features) + ")"


class GCN(nn.Module):
    def __init__(self, nfeat, nhid, nclass, dropout):
        super().__init__()
        self.gc1 = GraphConvolution(nfeat, nhid)
        self.gc2 = GraphConvolution(nhid, nclass)
        self.dropout = dropout

    def forward(self, x, adj):
        x = F.relu(self.gc1(x, adj))
        x = F.dropout(x, self.dropout, training=self.training)
        return F.log_softmax(self.gc2(x, adj), dim=1)


torch.manual_seed(42)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
adj, features, labels = load_data()
print(adj.shape, adj._nnz(), adj.is_sparse, adj.dtype, adj.layout)
adj, features, labels = adj.to(device), features.to(device), labels.to(device)
idx_train, idx_test = torch.LongTensor(range(30)), torch.LongTensor(range(30, 60))
model = GCN(features.shape[1], 8, int(labels.max()) + 1, 0.5).to(device)
print(model)
optimizer = optim.Adam(model.parameters(), lr=0.05, weight_decay=5e-4)
for epoch in range(30):
    model.train()
    optimizer.zero_grad()
    output = model(features, adj)
    loss = F.nll_loss(output[idx_train], labels[idx_train])
    loss.backward()
    optimizer.step()
    if epoch % 10 == 0:
        print(f"Epoch: {epoch:04d} loss_train: {loss.item():.4f}")
model.eval()
output = model(features, adj)
preds = output[idx_test].max(1)[1].type_as(labels)
print(f"accuracy= {preds.eq(labels[idx_test]).double().sum().item() / len(idx_test):.4f}")


class LightGCN(nn.Module):
    def __init__(self, users, items, pairs, dim=8, layers=2, keep_prob=0.8):
        super().__init__()
        self.num_users, self.num_items, self.n_layers, self.keep_prob = users, items, layers, keep_prob
        self.embedding_user = nn.Embedding(users, dim)
        self.embedding_item = nn.Embedding(items, dim)
        nn.init.normal_(self.embedding_user.weight, std=0.1)
        nn.init.normal_(self.embedding_item.weight, std=0.1)
        self.Graph = self.graph(pairs)

    def graph(self, pairs):
        user, item = torch.tensor(pairs).t()
        index = torch.cat([torch.stack([user, item + self.num_users]), torch.stack([item + self.num_users, user])], 1)
        size = torch.Size([self.num_users + self.num_items] * 2)
        graph = torch.sparse.IntTensor(index, torch.ones(index.size(-1)).int(), size)
        dense = graph.to_dense()
        degree = torch.sum(dense, dim=1).float()
        degree[degree == 0.0] = 1.0
        root = torch.sqrt(degree).unsqueeze(dim=0)
        dense = dense / root / root.t()
        index = dense.nonzero()
        data = dense[dense >= 1e-9]
        return torch.sparse.FloatTensor(index.t(), data, size).coalesce().to(device)

    def dropped(self, x):
        size, index, values = x.size(), x.indices().t(), x.values()
        random_index = (torch.rand(len(values)) + self.keep_prob).int().bool()
        return torch.sparse.FloatTensor(index[random_index].t(), values[random_index] / self.keep_prob, size)

    def computer(self):
        all_emb = torch.cat([self.embedding_user.weight, self.embedding_item.weight])
        embs = [all_emb]
        graph = self.dropped(self.Graph) if self.training else self.Graph
        for _ in range(self.n_layers):
            all_emb = torch.sparse.mm(graph, all_emb)
            embs.append(all_emb)
        return torch.split(torch.mean(torch.stack(embs, dim=1), dim=1), [self.num_users, self.num_items])

    def bpr_loss(self, users, pos, neg):
        all_users, all_items = self.computer()
        users_emb, pos_emb, neg_emb = all_users[users], all_items[pos], all_items[neg]
        scores = torch.sum(users_emb * neg_emb, dim=1) - torch.sum(users_emb * pos_emb, dim=1)
        return torch.mean(F.softplus(scores))


pairs = [(u, i) for u in range(10) for i in range(12) if (u * 5 + i * 3) % 4 == 0]
net = LightGCN(10, 12, pairs)
print(net.Graph)
opt = optim.Adam(net.parameters(), lr=0.02)
users, pos = torch.tensor(pairs).t()
for step in range(5):
    loss = net.bpr_loss(users, pos, (pos + 1 + step) % 12)
    opt.zero_grad()
    loss.backward()
    opt.step()
    print(f"{step} {loss.cpu().item():.4f}")
net.eval()
all_users, all_items = net.computer()
print(torch.topk(torch.sigmoid(all_users @ all_items.t()), 3)[1].shape)
