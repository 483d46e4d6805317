"""What one would use on a GPU instead of ndp-rt: the same bundle's fused graph, from host images to scores on the host.

`open_checked` opens one of PEERS and tells how far it is from the golden vectors; `run` is what is timed.
"""

from ndp_rt.bench.peers.base import Peer, PeerRunner, open_checked
from ndp_rt.bench.peers.onnxruntime_cuda import OnnxRuntimePeer
from ndp_rt.bench.peers.tensorrt_fused import TensorRtPeer
from ndp_rt.bench.peers.torch_peers import TorchPeer

__all__ = ["PEERS", "Peer", "PeerRunner", "open_checked"]

# The autotuned one tries kernels of its own for every convolution, which takes minutes for each batch size.
PEERS: tuple[Peer, ...] = (
    TorchPeer("torch-eager"),
    TorchPeer("torch-compile", {"mode": "reduce-overhead"}),
    TorchPeer("torch-compile-autotuned", {"mode": "max-autotune"}),
    OnnxRuntimePeer(),
    TensorRtPeer(),
)
