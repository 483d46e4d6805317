"""Plans: the only place that knows a model's order of steps."""

# What checks engines for a GPU before they are stored, run in the process that built them: engines lie below plans and
# may not import them, so it goes down to them as a name (`ndp_rt.engines.build_check.BuildCheck`).
DEVICE_CHECK = "ndp_rt.plan.gpu_check:check_build"
