"""Data sets, samplers and loaders. Tensors stay on the server; which items come next is decided here.

datasets   what has items
samplers   in which order they come
collate    how items become a batch
loader     DataLoader, which puts the three together
"""

from tclient.utils.data.collate import default_collate as default_collate
from tclient.utils.data.collate import default_convert as default_convert
from tclient.utils.data.datasets import ChainDataset as ChainDataset
from tclient.utils.data.datasets import ConcatDataset as ConcatDataset
from tclient.utils.data.datasets import Dataset as Dataset
from tclient.utils.data.datasets import IterableDataset as IterableDataset
from tclient.utils.data.datasets import StackDataset as StackDataset
from tclient.utils.data.datasets import Subset as Subset
from tclient.utils.data.datasets import TensorDataset as TensorDataset
from tclient.utils.data.datasets import random_split as random_split
from tclient.utils.data.loader import DataLoader as DataLoader
from tclient.utils.data.loader import get_worker_info as get_worker_info
from tclient.utils.data.samplers import BatchSampler as BatchSampler
from tclient.utils.data.samplers import RandomSampler as RandomSampler
from tclient.utils.data.samplers import Sampler as Sampler
from tclient.utils.data.samplers import SequentialSampler as SequentialSampler
from tclient.utils.data.samplers import SubsetRandomSampler as SubsetRandomSampler
from tclient.utils.data.samplers import WeightedRandomSampler as WeightedRandomSampler
