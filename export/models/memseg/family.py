"""MemSeg as a family: its name and its modules."""

from ndp_rt.export.features.family import Parts, PretrainedFamily


class MemSeg(PretrainedFamily):
    """Pretrained features, what good images are like, and a head trained on painted defects, in its preset `lite`."""

    name = "memseg"
    title = "MemSeg"

    def import_parts(self) -> Parts:
        from ndp_rt.export.models.memseg.network import MemSegLite
        from ndp_rt.export.models.memseg.settings import MemSegSettings
        from ndp_rt.export.models.memseg.training import MemSegTraining

        return Parts(settings=MemSegSettings, training=MemSegTraining, network=MemSegLite)
