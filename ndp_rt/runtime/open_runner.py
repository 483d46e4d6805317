"""From how an inspector was opened to what it runs images through."""

from ndp_rt.bundle.open import Bundle
from ndp_rt.options import CPU, Options
from ndp_rt.runtime.host_runner import HostRunner
from ndp_rt.runtime.open_plan import open_plan
from ndp_rt.runtime.runner import Runner


def open_runner(bundle: Bundle, options: Options) -> Runner:
    """Load a bundle's engines, building what is missing, and return what runs images through them.

    Raises:
        DeviceError: there is no such GPU, or it fails.
        MissingExtraError: a package that the backend needs is not installed.
        InputError: a name or number that is not taken.
        EngineError: an engine cannot be built, is damaged, or is missing and `options.build` is False.
    """
    if options.device != CPU:
        # Imported here: CuPy's arrays and kernels are of no use to a program on a CPU.
        from ndp_rt.runtime.open_gpu import open_gpu_runner

        return open_gpu_runner(bundle, options)
    plan = open_plan(bundle, options.engine_spec, build=options.build)
    return HostRunner(bundle, plan, options.channels)
