"""torch.backends: the libraries under torch on the server. Settings are its own; here they are noted.

cuda, cudnn    on a GPU
mkldnn, mkl, openmp, cpu   on a CPU
mps            on machines that no server runs on
"""

from tclient.backends import cpu as cpu
from tclient.backends import cuda as cuda
from tclient.backends import cudnn as cudnn
from tclient.backends import mkl as mkl
from tclient.backends import mkldnn as mkldnn
from tclient.backends import mps as mps
from tclient.backends import openmp as openmp
