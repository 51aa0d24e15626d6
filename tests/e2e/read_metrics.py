#!/usr/bin/python3
"""Reads Prometheus endpoints with Prometheus' own parser, checks their form, and prints their samples.

read_metrics.py URL...: one JSON object per URL on a line of its own, from 'name{label="value",...}' to the value,
labels in the order of their names. Ends with 1 and the reason on standard error when something is wrong.
"""
import json
import math
import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def check(condition, *what):
    if not condition:
        sys.exit("read_metrics: " + " ".join(str(part) for part in what))


def check_histogram(family):
    """Per set of labels: buckets rise to +Inf, which is the count, and there is a sum."""
    series = {}
    for sample in family.samples:
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        parts = series.setdefault(labels, {"buckets": []})
        if sample.name.endswith("_bucket"):
            parts["buckets"].append((float(sample.labels["le"]), sample.value))
        else:
            parts[sample.name[len(family.name):]] = sample.value
    for labels, parts in series.items():
        where = (family.name, labels)
        buckets = parts["buckets"]
        check(buckets and buckets[-1][0] == math.inf, where, "does not end with +Inf")
        check(buckets == sorted(buckets), where, "buckets are not in order:", buckets)
        counts = [count for _, count in buckets]
        check(counts == sorted(counts), where, "counts fall:", counts)
        check(buckets[-1][1] == parts.get("_count"), where, "+Inf", buckets[-1][1], "count", parts.get("_count"))
        check("_sum" in parts, where, "has no sum")


def read(url):
    with urllib.request.urlopen(url, timeout=20) as response:
        check(response.status == 200, url, "status", response.status)
        text = response.read().decode("utf-8")
    samples, names = {}, set()
    for family in text_string_to_metric_families(text):
        check(family.name not in names, url, family.name, "occurs twice")
        names.add(family.name)
        check(family.documentation, url, family.name, "has no HELP")
        check(family.type in ("counter", "gauge", "histogram", "summary"), url, family.name, "has type", family.type)
        if family.type == "histogram":
            check_histogram(family)
        for sample in family.samples:
            labels = ",".join('%s="%s"' % label for label in sorted(sample.labels.items()))
            key = sample.name + ("{" + labels + "}" if labels else "")
            check(key not in samples, url, key, "occurs twice")
            check(family.type == "gauge" or sample.value >= 0 or math.isnan(sample.value), url, key, sample.value)
            samples[key] = sample.value if math.isfinite(sample.value) else None
    check(any(name.startswith("trireme:") for name in names), url, "has no metric of ours")
    return samples


for address in sys.argv[1:]:
    print(json.dumps(read(address)))
