"""What the samples of a soak show: a leak, and not what malloc gives back and takes again."""

from ndp_rt.bench.capi.soak import COLUMNS, MAX_SERIES_COUNT, Sample, list_figures, summarise

LOW, HIGH = 160 * 2**20, 180 * 2**20


def make_samples(count: int, leak_bytes: int = 0, descriptors: int = 0, threads: int = 0) -> list[Sample]:
    """Return samples whose memory jumps between two values, with so much lost from one to the next."""
    return [
        (
            10.0 * (i + 1),
            (LOW if i % 3 else HIGH) + i * leak_bytes,
            4 + i * descriptors,
            9 + i * threads,
            i + 1,
        )
        for i in range(count)
    ]


def find_missed(samples: list[Sample]) -> list[str]:
    return [figure.name for figure in list_figures({"failures": 0, **summarise(samples)}) if not figure.is_met]


def test_memory_that_goes_up_and_down_is_no_growth() -> None:
    found = summarise(make_samples(360))
    assert found["rss_growth"] == 0
    assert find_missed(make_samples(360)) == []


def test_a_leak_is_growth_though_memory_goes_up_and_down() -> None:
    samples = make_samples(360, leak_bytes=2**13)  # 2.9 MB in an hour
    assert 0.01 < summarise(samples)["rss_growth"] < 0.02
    assert find_missed(samples) == ["soak: growth of resident memory"]


def test_a_descriptor_and_a_thread_that_stay_are_missed_figures() -> None:
    samples = make_samples(40, descriptors=1, threads=1)
    assert find_missed(samples) == ["soak: descriptors left open", "soak: threads left running"]


def test_long_series_are_thinned_and_keep_the_last_sample() -> None:
    for count in (1, 2, 199, 200, 201, 360, 5000):
        samples = make_samples(count)
        found = summarise(samples)
        assert len(found["series"]) <= MAX_SERIES_COUNT and found["sample_count"] == count
        assert found["series"][-1] == list(samples[-1]) and len(found["series"][0]) == len(COLUMNS)
        assert found["columns"] == list(COLUMNS)
    assert len(summarise(make_samples(200))["series"]) == 200
