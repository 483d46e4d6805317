"""The bundle's own fused graph, image to map, as rivals get it: in the precision's types, for one batch size."""

from typing import Any

from ndp_rt.bundle.open import Bundle


def make_fused_graph(bundle: Bundle, precision: str, batch: int) -> Any:
    """Return an onnx.ModelProto with the input `image` and the one output `map`; needs the onnx package.

    Whether it is the plain graph or a rewritten one is as the bundle was exported.

    Raises:
        InputError: a precision that graphs have not.
        BundleError, EngineError: the graph cannot be read, or not be written in this precision.
    """
    from ndp_rt.graphs.folding import fix_batch, fold_constants, load_model, remove_unused
    from ndp_rt.graphs.typed import make_typed

    model = load_model(bundle.stage_path("fused"))
    fold_constants(model)
    kept = [value for value in model.graph.output if value.name == "map"]  # the reconstruction is not asked for
    del model.graph.output[:]
    model.graph.output.extend(kept)
    remove_unused(model)
    typed = make_typed(model, precision)
    fix_batch(typed, batch)
    return typed
