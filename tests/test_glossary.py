"""Names that are written to MLflow: one for each thing, and what latencies are called."""

from runtime_pruning import glossary
from runtime_pruning.glossary import Metric


def test_each_metric_has_a_name_of_its_own_and_a_meaning() -> None:
    names = [metric.name for metric in glossary.ALL_METRICS]
    assert len(set(names)) == len(names)
    for metric in glossary.ALL_METRICS:
        assert metric.meaning.endswith("."), metric.name
        assert metric.unit, metric.name


def test_every_metric_of_the_module_is_listed() -> None:
    alone = {value for value in vars(glossary).values() if isinstance(value, Metric)}
    assert alone <= set(glossary.ALL_METRICS)


def test_latencies_and_speed_ups_name_device_and_batch() -> None:
    assert glossary.latency("cpu-t1", 64, "p95").name == "latency_ms.cpu-t1.64.p95"
    assert glossary.latency("cpu-t1", 64, "p95").better == "lower"
    assert glossary.speedup("cpu-t1", 1).name == "speedup.cpu-t1.1"
    assert glossary.speedup("cpu-t1", 1, "_low").name == "speedup.cpu-t1.1_low"


def test_tags_and_artifacts_do_not_clash() -> None:
    texts = [
        value for name, value in vars(glossary).items() if name.isupper() and isinstance(value, str)
    ]
    assert len(set(texts)) == len(texts)
