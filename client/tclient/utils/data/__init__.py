"""Data sets, samplers and loaders. Tensors stay on the server; which items come next is decided here.

dataset         what has items
sampler         in which order they come
distributed     in which order they come to one of several processes
_utils.collate  how items become a batch
_utils.worker   what a worker process does
_utils.pool     the worker processes of one loader
dataloader      DataLoader, which puts all together
"""

from tclient.utils.data import dataloader as dataloader
from tclient.utils.data import dataset as dataset
from tclient.utils.data import distributed as distributed
from tclient.utils.data import sampler as sampler
from tclient.utils.data.dataloader import DataLoader as DataLoader
from tclient.utils.data.dataloader import default_collate as default_collate
from tclient.utils.data.dataloader import default_convert as default_convert
from tclient.utils.data.dataloader import get_worker_info as get_worker_info
from tclient.utils.data.dataset import ChainDataset as ChainDataset
from tclient.utils.data.dataset import ConcatDataset as ConcatDataset
from tclient.utils.data.dataset import Dataset as Dataset
from tclient.utils.data.dataset import IterableDataset as IterableDataset
from tclient.utils.data.dataset import StackDataset as StackDataset
from tclient.utils.data.dataset import Subset as Subset
from tclient.utils.data.dataset import TensorDataset as TensorDataset
from tclient.utils.data.dataset import random_split as random_split
from tclient.utils.data.distributed import DistributedSampler as DistributedSampler
from tclient.utils.data.sampler import BatchSampler as BatchSampler
from tclient.utils.data.sampler import RandomSampler as RandomSampler
from tclient.utils.data.sampler import Sampler as Sampler
from tclient.utils.data.sampler import SequentialSampler as SequentialSampler
from tclient.utils.data.sampler import SubsetRandomSampler as SubsetRandomSampler
from tclient.utils.data.sampler import WeightedRandomSampler as WeightedRandomSampler
