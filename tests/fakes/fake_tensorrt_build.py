"""The fake TensorRT's builder and what configures it."""

import json
import weakref
from typing import Any

from tests.fakes.fake_tensorrt_base import CACHE_MAGIC, PLAN_MAGIC, Faked, make_with_driver


class IOptimizationProfile(Faked):
    __slots__ = ("_shapes",)

    def __init__(self) -> None:
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))


class ITimingCache(Faked):
    __slots__ = ("_document",)

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def serialize(self) -> Any:
        return self._lib.IHostMemory(CACHE_MAGIC + json.dumps(self._document).encode())


class IBuilderConfig(Faked):
    __slots__ = ("_cache", "_flags", "_level", "_limits", "_monitor", "_profiles", "_sources", "_verbosity")

    def __init__(self) -> None:
        self._flags = {"TF32"}
        self._sources = 0b11111
        self._limits: dict[str, int] = {}
        self._profiles: list[Any] = []
        self._cache: Any = None
        self._monitor: Any = None
        self._level: Any = None
        self._verbosity: Any = None

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self._flags

    def get_tactic_sources(self) -> int:
        return self._sources

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self._sources = tactic_sources
        return not self._refuses("set_tactic_sources")

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._limits[pool.name] = pool_size

    def add_optimization_profile(self, profile: Any) -> int:
        if self._refuses("add_optimization_profile"):
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        lib, content = self._lib, bytes(serialized_timing_cache)
        if not content:
            return lib.ITimingCache({"version": lib.__version__, "gpu": lib.knobs.gpu, "kernels": []})
        if not content.startswith(CACHE_MAGIC):
            self._log("ERROR", "the timing cache is corrupt")
            return None
        return lib.ITimingCache(json.loads(content[len(CACHE_MAGIC) :]))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        document = cache._document
        if not ignore_mismatch and (document["version"], document["gpu"]) != (
            self._lib.__version__,
            self._lib.knobs.gpu,
        ):
            return False
        self._cache = weakref.ref(cache)
        return True

    def get_timing_cache(self) -> Any:
        return self._cache()

    @property
    def profiling_verbosity(self) -> Any:
        return self._verbosity

    @profiling_verbosity.setter
    def profiling_verbosity(self, verbosity: Any) -> None:
        self._verbosity = verbosity

    @property
    def hardware_compatibility_level(self) -> Any:
        return self._level

    @hardware_compatibility_level.setter
    def hardware_compatibility_level(self, level: Any) -> None:
        self._level = level

    @property
    def progress_monitor(self) -> Any:
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, monitor: Any) -> None:
        self._monitor = weakref.ref(monitor)


class Builder(Faked):
    __slots__ = ()

    def __init__(self, logger: Any) -> None:
        make_with_driver(self, logger)

    def create_network(self, flags: int = 0) -> Any:
        return self._lib.INetworkDefinition(flags)

    def create_builder_config(self) -> Any:
        return self._lib.IBuilderConfig()

    def create_optimization_profile(self) -> Any:
        return self._lib.IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        lib, cache = self._lib, config._cache()
        assert network._parser() is not None, "the parser went away, and the network's weights with it"
        assert cache is not None, "the timing cache went away"
        lib.knobs.builds.append(
            {
                "flags": set(config._flags),
                "network_flags": network._flags,
                "limits": dict(config._limits),
                "sources": config._sources,
                "verbosity": config._verbosity.name if config._verbosity is not None else None,
                "level": config._level.name if config._level is not None else None,
                "profiles": [dict(profile._shapes) for profile in config._profiles],
                "held": {
                    layer.name: layer._precision.name for layer in network._layers if layer._precision is not None
                },
                "formats": {tensor.name: tensor.allowed_formats for tensor in (*network._inputs, *network._outputs)},
            }
        )
        self._log("VERBOSE", "Applying generic optimizations")
        self._log("INFO", "Detected 1 inputs and 1 output network tensors.")
        if config._monitor is not None:
            monitor = config._monitor()
            assert monitor is not None, "the progress monitor went away"
            monitor.phase_start("Building the engine", None, 2)
            is_wanted = [monitor.step_complete("Building the engine", step) for step in range(2)]
            monitor.phase_finish("Building the engine")
            if not all(is_wanted):
                return None
        if self._refuses("build_serialized_network"):
            return None
        lib.knobs.cache_hits += sum(layer.name in cache._document["kernels"] for layer in network._layers)
        cache._document["kernels"] += [layer.name for layer in network._layers]
        return lib.IHostMemory(PLAN_MAGIC + json.dumps(self._describe(network, config)).encode())

    def _describe(self, network: Any, config: Any) -> dict[str, Any]:
        lib = self._lib
        layers = [
            {"kind": layer._kind, "name": layer.name, "type": self._choose_type(layer, network, config)}
            for layer in network._layers
            if layer._kind != "CONSTANT"
        ]
        (profile,) = config._profiles
        return {
            "version": lib.__version__,
            "gpu": lib.knobs.gpu,
            "flags": sorted(config._flags),
            "is_for_any_gpu": config._level is not None and config._level.name == "AMPERE_PLUS",
            "layers": layers,
            "inputs": [(one.name, one._dtype, one.shape) for one in network._inputs],
            "outputs": [(one.name, one._dtype, one.shape) for one in network._outputs],
            "shapes": {name: shapes[1] for name, shapes in profile._shapes.items()},
        }

    def _choose_type(self, layer: Any, network: Any, config: Any) -> str:
        """Return what a layer computes in; before 10, unless it is held to a type, whatever flags allow."""
        first = layer._inputs[0].name
        behind = next((other for other in network._layers if other._outputs[0].name == first), None)
        kind: str = network._types[first]
        if behind is not None and behind._kind == "DEQUANTIZE":
            kind = "INT8"
        elif not self._lib.__version__.startswith(("10", "11")):
            is_held = layer._precision is not None and "OBEY_PRECISION_CONSTRAINTS" in config._flags
            kind = layer._precision.name if is_held else "HALF" if "FP16" in config._flags else "FLOAT"
        kind = self._lib.knobs.retypes.get(kind, kind)
        return "TF32" if kind == "FLOAT" and "TF32" in config._flags else kind
